/** A promise that is settled from outside. */

export type Deferred<T> = { readonly promise: Promise<T>; readonly resolve: (value: T) => void; readonly reject: (error: Error) => void };

export const deferred = <T>(): Deferred<T> => {
	let resolve: (value: T) => void = () => undefined;
	let reject: (error: Error) => void = () => undefined;
	const promise = new Promise<T>((onResolve, onReject) => {
		resolve = onResolve;
		reject = onReject;
	});
	// Whoever wants to hear of a failure awaits it; nobody has to.
	promise.catch(() => undefined);
	return { promise, resolve, reject };
};

/** Rejects with the signal's reason as soon as it aborts; what was waited for goes on. */
export const abortable = async <T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> => {
	if (signal === undefined) {
		return promise;
	}
	signal.throwIfAborted();
	const aborted = deferred<never>();
	const abort = (): void => aborted.reject(signal.reason instanceof Error ? signal.reason : new Error(String(signal.reason)));
	signal.addEventListener('abort', abort, { once: true });
	try {
		return await Promise.race([promise, aborted.promise]);
	} finally {
		signal.removeEventListener('abort', abort);
	}
};

/** As `abortable`, for an answer that nobody waits for any more once this has failed: `forget` is told why. */
export const untilAborted = async <T>(answer: Promise<T>, signal: AbortSignal | undefined, forget: (reason: Error) => void): Promise<T> => {
	try {
		return await abortable(answer, signal);
	} catch (error) {
		forget(error instanceof Error ? error : new Error(String(error)));
		throw error;
	}
};
