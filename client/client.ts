/** `connect`: the way in. */
import { REALTIME_PATH } from '../src/protocol/limits.js';
import type { TokenSource } from './control-socket.js';
import { LiveSession } from './live-session.js';

export type ConnectOptions = {
	/** Shows the picture. Without one, take `session.stream`; `displayed` is then never known. */
	readonly video?: HTMLVideoElement;
	/** A client secret of the server, or a function that gets one: called for each `connect`, so that what it gives is fresh. */
	readonly token?: TokenSource;
	/** Closes the session when it aborts. */
	readonly signal?: AbortSignal;
};

/** The address of the control socket: `http` stands for `ws`, and the path may be left out. */
export const socketUrl = (url: string, base: string): string => {
	const address = new URL(url, base);
	address.protocol = address.protocol === 'https:' || address.protocol === 'wss:' ? 'wss:' : 'ws:';
	if (address.pathname === '/' || address.pathname === '') {
		address.pathname = REALTIME_PATH;
	}
	address.hash = '';
	return address.href;
};

/**
 * Connects to a server, by default the one that served the page. Returns at once; the control socket and the video connection
 * are set up in the background, so that a later `start` only has to wait for the picture. Never throws for what the
 * network does: `session.state` becomes `failed` and whatever is awaited rejects with a `TurbocastError`.
 */
export const connect = (url?: string, options: ConnectOptions = {}): LiveSession => {
	const base = globalThis.location?.href ?? 'http://127.0.0.1/';
	const session = new LiveSession(socketUrl(url ?? '/', base), options.video, options.token);
	const { signal } = options;
	if (signal !== undefined) {
		const close = (): void => session.close();
		if (signal.aborted) {
			close();
		} else {
			signal.addEventListener('abort', close, { once: true });
			session.ended.finally(() => signal.removeEventListener('abort', close)).catch(() => undefined);
		}
	}
	return session;
};
