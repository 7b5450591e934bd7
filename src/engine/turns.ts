/**
 * Who runs a network next, where several streams want to: the one whose pictures are due first. Steps of several streams are computed as one forward where
 * the networks can. One piece of work at a time, none of them longer than one run of a network, so that whoever is in a hurry waits for one run at most.
 */
import type { Advanced, AdvanceInputs, Networks, ResidentNetworks, StepInputs, StepOutputs, StepsTogether } from './networks.js';

/** Lets those come who were waiting for what has just ended: their next step is the other half of the next forward. */
const gather = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

/** One forward: for its velocity or, on a device, for the latent after it. */
type Step = { readonly networks: Networks } & (
	| { readonly wants: 'velocity'; readonly inputs: StepInputs; readonly done: (outputs: StepOutputs) => void }
	| { readonly wants: 'latent'; readonly inputs: AdvanceInputs; readonly done: (advanced: Advanced) => void });

type Work = {
	readonly turn: Turn;
	readonly order: number;
	readonly askedAtMs: number;
	readonly fail: (error: unknown) => void;
	readonly what: { readonly kind: 'alone'; readonly run: () => Promise<void>; readonly isPrelude: boolean } | { readonly kind: 'step'; readonly step: Step };
};

export type TurnsOptions = { readonly nowMs: () => number };

/** Of one engine. At most one piece of work of each stream waits, so that the streams bound it. */
export class Turns {
	readonly nowMs: () => number;
	readonly #waiting: Work[] = [];
	#working: Promise<void> | undefined;
	#asked = 0;
	#forwards = 0;
	#steps = 0;

	constructor({ nowMs }: TurnsOptions) {
		this.nowMs = nowMs;
	}

	/** Forwards that were computed for streams, and how many steps were in them. */
	get counts(): { readonly forwards: number; readonly steps: number } {
		return { forwards: this.#forwards, steps: this.#steps };
	}

	/** Takes a piece of work; settles it when it was done, or failed, or was cancelled before it began. */
	ask(turn: Turn, what: Work['what'], fail: (error: unknown) => void): void {
		const work: Work = { turn, what, fail, order: this.#asked++, askedAtMs: this.nowMs() };
		this.#waiting.push(work);
		this.#working ??= this.#drain();
	}

	/** Whoever waits and was cancelled is told at once. */
	drop(turn: Turn, reason: unknown): void {
		for (const work of this.#waiting.filter((each) => each.turn === turn)) {
			this.#waiting.splice(this.#waiting.indexOf(work), 1);
			work.fail(reason);
		}
	}

	async #drain(): Promise<void> {
		await gather();
		while (this.#waiting.length > 0) {
			this.#waiting.sort((one, two) => one.turn.dueAtMs - two.turn.dueAtMs || one.order - two.order);
			const first = this.#first();
			const group = first.what.kind === 'alone' ? [first] : this.#companyOf(first.what.step);
			for (const work of group) {
				this.#waiting.splice(this.#waiting.indexOf(work), 1);
			}
			await this.#run(group);
			await gather();
		}
		this.#working = undefined;
	}

	/** What is due first; before a step that could have company comes what brings others to theirs. */
	#first(): Work {
		const [first] = this.#waiting as [Work];
		const canShare = first.what.kind === 'step' && first.what.step.networks.together !== undefined;
		return (canShare ? this.#waiting.find(({ what }) => what.kind === 'alone' && what.isPrelude) : undefined) ?? first;
	}

	/** The step that is due first and those after it that can be computed with it; the number is one that there is a forward for. */
	#companyOf({ networks, wants }: Step): Work[] {
		const { together } = networks;
		const canJoin = ({ what }: Work): boolean =>
			what.kind === 'step' && what.step.networks === networks && what.step.wants === wants && (together?.takesCleanPasses === true || !what.step.inputs.wantKeysAndValues);
		const [first, ...others] = this.#waiting as [Work, ...Work[]];
		const group = canJoin(first) ? [first, ...others.filter(canJoin)] : [first];
		return group.slice(0, Math.max(1, ...(together?.sizes ?? []).filter((size) => size <= group.length)));
	}

	async #run(group: readonly Work[]): Promise<void> {
		const startMs = this.nowMs();
		// Before the work: whoever is told of its end reads the clock.
		for (const { turn, askedAtMs } of group) {
			turn.lose(startMs - askedAtMs);
		}
		const steps = group.flatMap(({ what }) => (what.kind === 'step' ? [what.step] : []));
		try {
			const [first] = group;
			if (first?.what.kind === 'alone') {
				await first.what.run();
			} else {
				this.#forwards += 1;
				this.#steps += steps.length;
				const tell = await forward(steps);
				if (this.#waiting.length > 0) {
					// Whoever is next waits for this run, and not for all that a device was given before.
					await steps[0]?.networks.resident?.settle?.();
				}
				// A forward that was shared costs each its part.
				const othersMs = (this.nowMs() - startMs) * (1 - 1 / group.length);
				group.forEach(({ turn }) => turn.lose(othersMs));
				tell();
			}
		} catch (error) {
			group.forEach((work) => work.fail(error));
		}
	}
}

/** Computes steps that want the same; returns how they are told. */
const forward = async (steps: readonly Step[]): Promise<() => void> => {
	const [{ networks }] = steps as readonly [Step];
	const forLatents = steps.flatMap((step) => (step.wants === 'latent' ? [step] : []));
	if (forLatents.length > 0) {
		const advanced = await (networks.resident as ResidentNetworks).advance(forLatents.map(({ inputs }) => inputs));
		return () => forLatents.forEach((step, index) => step.done(advanced[index] as Advanced));
	}
	const forVelocities = steps.flatMap((step) => (step.wants === 'velocity' ? [step] : []));
	const all = forVelocities.map(({ inputs }) => inputs);
	const outputs = all.length === 1 ? [await networks.step(all[0] as StepInputs)] : await (networks.together as StepsTogether).steps(all);
	return () => forVelocities.forEach((step, index) => step.done(outputs[index] as StepOutputs));
};

/** The work of one stream, a chunk at a time. */
export class Turn {
	readonly #turns: Turns;
	#dueAtMs = 0;
	#signal: AbortSignal | undefined;
	#lostMs = 0;
	#isAlone = false;

	constructor(turns: Turns) {
		this.#turns = turns;
	}

	get dueAtMs(): number {
		return this.#dueAtMs;
	}

	/** Time spent waiting for others, and on others, since the chunk began. */
	get lostMs(): number {
		return this.#lostMs;
	}

	/** Time that stands still while others have their turn. */
	readonly nowMs = (): number => this.#turns.nowMs() - this.#lostMs;

	/** A chunk begins, or something else that is due then. */
	begin(dueAtMs: number, signal?: AbortSignal): void {
		this.#dueAtMs = dueAtMs;
		this.#signal = signal;
		this.#lostMs = 0;
		signal?.addEventListener('abort', () => this.#turns.drop(this, signal.reason), { once: true });
	}

	lose(ms: number): void {
		this.#lostMs += ms;
	}

	/**
	 * Does what nobody else may interrupt; whatever asks for a turn inside has it. `isPrelude`: it is short, and steps come after it. Throws what `work` throws, or
	 * why it was cancelled.
	 */
	alone<Result>(work: () => Promise<Result>, isPrelude = false): Promise<Result> {
		if (this.#isAlone) {
			return work();
		}
		return this.#ask((resolve) => ({
			kind: 'alone', isPrelude,
			run: async () => {
				this.#isAlone = true;
				try {
					resolve(await work());
				} finally {
					this.#isAlone = false;
				}
			},
		}));
	}

	/** One forward, perhaps together with others'. */
	step(networks: Networks, inputs: StepInputs): Promise<StepOutputs> {
		return this.#isAlone ? networks.step(inputs) : this.#ask((done) => ({ kind: 'step', step: { networks, wants: 'velocity', inputs, done } }));
	}

	/** The same on a device, with the sampler's update. */
	async advance(networks: Networks, inputs: AdvanceInputs): Promise<Advanced> {
		if (this.#isAlone) {
			return (await (networks.resident as ResidentNetworks).advance([inputs]))[0] as Advanced;
		}
		return this.#ask((done) => ({ kind: 'step', step: { networks, wants: 'latent', inputs, done } }));
	}

	#ask<Result>(what: (resolve: (result: Result) => void) => Work['what']): Promise<Result> {
		if (this.#signal?.aborted === true) {
			return Promise.reject(this.#signal.reason as Error);
		}
		return new Promise((resolve, reject) => this.#turns.ask(this, what(resolve), reject));
	}
}

const residentInTurn = (networks: Networks, resident: ResidentNetworks, turn: Turn): ResidentNetworks => {
	const { settle } = resident;
	return {
		...resident,
		advance: (all) => Promise.all(all.map((inputs) => turn.advance(networks, inputs))),
		settle: settle === undefined ? undefined : () => turn.alone(settle),
	};
};

/** The networks as a stream sees them that takes turns. Closed by whoever loaded them. */
export const inTurn = (networks: Networks, turn: Turn): Networks => ({
	...networks,
	step: (inputs) => turn.step(networks, inputs),
	...(networks.resident === undefined ? {} : { resident: residentInTurn(networks, networks.resident, turn) }),
	encodePrompt: (text) => turn.alone(() => networks.encodePrompt(text)),
	decodeLatent: (latent, memory) => turn.alone(() => networks.decodeLatent(latent, memory)),
	alone: (work) => turn.alone(work),
});
