/** `connect`: the way in. */
import { BrowserSession } from './browser-session.js';
import type { TokenSource } from './control-socket.js';
import type { LiveSession } from './live-session.js';
import { defaultReconnect, type ReconnectPolicy } from './reconnect.js';
import { resumeStore, type ResumeStorage, type ResumeStore } from './resume-store.js';
import { socketUrl } from './socket-url.js';
import type { TransportChoice } from './video-transport.js';

export type ConnectionOptions = {
	/** A client secret of the server, or a function that gets one: called for each connection, so that what it gives is fresh. */
	readonly token?: TokenSource;
	/** Closes the session when it aborts. */
	readonly signal?: AbortSignal;
	/** When to connect again; `false`: never. By default a connection that was up is gone after for two minutes. */
	readonly reconnect?: ReconnectPolicy | false;
	/** Goes on with a session that was left: `sessionStorage` makes a reload of the page go unnoticed. */
	readonly storage?: ResumeStorage;
	/** Goes on with the session of this token: that of `fork`. */
	readonly resumeToken?: string;
	/** How the video comes; `auto` by default: by WebRTC, over the control socket while that does not work. */
	readonly transport?: TransportChoice;
};

export type ConnectOptions = ConnectionOptions & {
	/** Shows the picture. Without one, take `session.stream`; `displayed` is then never known. */
	readonly video?: HTMLVideoElement | null;
	/** Called for each video connection before it is negotiated: for encoded transforms. */
	readonly onReceiver?: (receiver: RTCRtpReceiver) => void;
};

/** What every kind of session takes from its options. */
export const sessionOptions = (url: string, { token, reconnect, storage, resumeToken, transport }: ConnectionOptions) => {
	const stored = resumeStore(storage, url);
	const store: ResumeStore = resumeToken === undefined ? stored : { load: () => resumeToken, save: stored.save };
	return { url, token, reconnect: reconnect === false ? () => undefined : (reconnect ?? defaultReconnect), store, transport };
};

/** Closes the session when the signal aborts, and lets go of the signal when the session is over. */
export const closeOnAbort = (session: LiveSession, signal: AbortSignal | undefined): void => {
	const close = (): void => session.close();
	if (signal?.aborted === true) {
		close();
	} else if (signal !== undefined) {
		signal.addEventListener('abort', close, { once: true });
		session.ended.finally(() => signal.removeEventListener('abort', close)).catch(() => undefined);
	}
};

/**
 * Connects to a server, by default the one that served the page. Returns at once; the control socket and the video connection
 * are set up in the background, so that a later `start` only has to wait for the picture. Never throws for what the
 * network does: `session.state` becomes `failed` and whatever is awaited rejects with a `TurbocastError`.
 */
export const connect = (url?: string, options: ConnectOptions = {}): BrowserSession => {
	const address = socketUrl(url ?? '/', globalThis.location?.href ?? 'http://127.0.0.1/');
	const session = new BrowserSession({ ...sessionOptions(address, options), video: options.video ?? undefined, onReceiver: options.onReceiver });
	closeOnAbort(session, options.signal);
	return session;
};
