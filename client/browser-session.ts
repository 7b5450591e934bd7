/** A session in a browser. */
import { LiveSession, type SessionOptions } from './live-session.js';
import { BrowserSink, type BrowserSinkOptions } from './video-sink.js';

export type BrowserSessionOptions = Omit<SessionOptions, 'platform'> & Omit<BrowserSinkOptions, 'onShown'>;

/** Made by `connect`. */
export class BrowserSession extends LiveSession {
	readonly #sink: () => BrowserSink | undefined;

	constructor(options: BrowserSessionOptions) {
		let sink: BrowserSink | undefined;
		super({
			...options,
			platform: {
				WebSocket,
				hasWebRtc: typeof RTCPeerConnection !== 'undefined',
				openSink: (onShown) => {
					sink = new BrowserSink({ ...options, onShown });
					return sink;
				},
			},
		});
		this.#sink = () => sink;
	}

	/** The video, for applications that show it themselves: one stream for the life of the session, whose track changes with the connection. */
	get stream(): MediaStream | undefined {
		return this.#sink()?.stream;
	}
}
