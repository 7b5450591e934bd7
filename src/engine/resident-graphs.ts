/** Loaded graphs by name: all stay, or each makes room for the next. */

type Loaded = { readonly close: () => Promise<void> };

export class ResidentGraphs {
	readonly #oneAtATime: boolean;
	readonly #loaded = new Map<string, Loaded>();

	constructor(oneAtATime: boolean) {
		this.#oneAtATime = oneAtATime;
	}

	/** The graph of that name, loaded when it is not there, by the same function each time. Not for concurrent use; the session is good until the next call. */
	async use<Session extends Loaded>(name: string, load: () => Promise<Session>): Promise<Session> {
		const known = this.#loaded.get(name);
		if (known !== undefined) {
			return known as Session;
		}
		await this.makeRoom();
		const session = await load();
		this.#loaded.set(name, session);
		return session;
	}

	/** Closes one that is not needed again soon. */
	async drop(name: string): Promise<void> {
		const session = this.#loaded.get(name);
		this.#loaded.delete(name);
		await session?.close();
	}

	/** Closes what is loaded, where only one may be. */
	async makeRoom(): Promise<void> {
		if (this.#oneAtATime) {
			await this.close();
		}
	}

	async close(): Promise<void> {
		const sessions = [...this.#loaded.values()];
		this.#loaded.clear();
		await Promise.all(sessions.map((session) => session.close()));
	}
}
