/** Where the token that brings a session back is kept, so that it outlives the page: `sessionStorage` does for a reload. */

export type ResumeStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

export type ResumeStore = {
	readonly load: () => string | undefined;
	/** `undefined` forgets it. */
	readonly save: (token: string | undefined) => void;
};

/** One token for each server. Storage that is full or forbidden only means that a reload begins anew. */
export const resumeStore = (storage: ResumeStorage | undefined, url: string): ResumeStore => {
	const key = `turbocast.resume ${url}`;
	const attempt = <T>(access: () => T): T | undefined => {
		try {
			return access();
		} catch {
			return undefined;
		}
	};
	return {
		load: () => attempt(() => storage?.getItem(key)) ?? undefined,
		save: (token) => {
			attempt(() => (token === undefined ? storage?.removeItem(key) : storage?.setItem(key, token)));
		},
	};
};
