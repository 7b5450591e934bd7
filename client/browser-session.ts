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
				openSink: (onShown) => {
					sink = new BrowserSink({ ...options, onShown });
					return sink;
				},
			},
		});
		this.#sink = () => sink;
	}

	/** The video, once connected; for applications that show it themselves. Another one after a connection was made anew. */
	get stream(): MediaStream | undefined {
		return this.#sink()?.stream;
	}
}
