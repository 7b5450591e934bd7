/** A session in Node: its frames are handed over, encoded or decoded. */
import { LiveSession, type SessionOptions } from '../live-session.js';
import type { Platform } from '../platform.js';
import { WebSocket } from 'ws';
import { openDecoder } from './decoder.js';
import { FrameSink } from './frame-sink.js';
import type { DecodedFrame, EncodedFrame } from './video-frame.js';

export type FramesOptions = {
	/** Ends the reading, without an error. */
	readonly signal?: AbortSignal;
	/** Pictures instead of access units; needs the package `node-av`. */
	readonly decode?: boolean;
};

/** Made by `connect` of `turbocast-client/node`. */
export class NodeSession extends LiveSession {
	readonly #sink: () => FrameSink | undefined;

	constructor(options: Omit<SessionOptions, 'platform'>) {
		let sink: FrameSink | undefined;
		super({
			...options,
			platform: {
				// The same interface, from a package: Node 20 has none of its own.
				WebSocket: WebSocket as unknown as Platform['WebSocket'],
				hasWebRtc: true,
				openSink: (onShown) => {
					sink = new FrameSink(onShown);
					return sink;
				},
			},
		});
		this.#sink = () => sink;
	}

	/**
	 * Frames from the next key frame on, each with its record, until the session ends. Any number of readers; one that is too slow loses
	 * frames, never slows the others. Throws `not_supported` when decoding is asked for and the package is missing.
	 */
	frames(options: FramesOptions & { readonly decode: true }): AsyncGenerator<DecodedFrame, undefined>;
	frames(options?: FramesOptions): AsyncGenerator<EncodedFrame, undefined>;
	async* frames({ signal, decode = false }: FramesOptions = {}): AsyncGenerator<EncodedFrame | DecodedFrame, undefined> {
		const sink = this.#sink();
		if (sink === undefined) {
			return undefined;
		}
		if (!decode) {
			return yield* sink.read(signal);
		}
		const decoder = await openDecoder();
		try {
			for await (const frame of sink.read(signal)) {
				const decoded = decoder.decode(frame);
				if (decoded !== undefined) {
					yield decoded;
				}
			}
		} finally {
			decoder.close();
		}
		return undefined;
	}
}
