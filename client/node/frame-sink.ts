/** The video of a session in Node: frames, joined with their records, to everyone who reads them. */
import type { FrameMeta } from '../../src/protocol/messages.js';
import type { IceServers, ShownFrame, SocketVideo, SocketVideoEvents, VideoConnection, VideoEvents, VideoSink } from '../platform.js';
import type { VideoTransport } from '../video-transport.js';
import { FrameReceiver, type ReceivedUnit } from './frame-receiver.js';
import type { EncodedFrame } from './video-frame.js';

/** A record overtakes its frame or follows it at once; after this the frame goes on without one. */
const RECORD_PATIENCE_MS = 60;
/** Records that came before their frame: more than a second of them means that no video comes. */
const MOST_RECORDS = 64;
/** Two seconds at 30 frames a second. A reader that is further behind goes on at a key frame. */
const MOST_WAITING_FRAMES = 60;

type Reader = {
	readonly waiting: { readonly frame: EncodedFrame; readonly receivedAtMs: number }[];
	wake: (() => void) | undefined;
	/** Until a key frame comes, what comes cannot be decoded. */
	needsKeyframe: boolean;
};

export class FrameSink implements VideoSink {
	readonly #onShown: (frame: ShownFrame) => void;
	readonly #records = new Map<number, FrameMeta>();
	readonly #readers = new Set<Reader>();
	/** The source whose frames count. */
	#source: VideoConnection | SocketVideo | undefined;
	#requestKeyframe: () => void = () => undefined;
	/** The frame that waits for its record. */
	#held: { readonly unit: ReceivedUnit; readonly receivedAtMs: number; readonly timer: ReturnType<typeof setTimeout> } | undefined;
	#frames = 0;
	#isClosed = false;

	constructor(onShown: (frame: ShownFrame) => void) {
		this.#onShown = onShown;
	}

	open(iceServers: IceServers, events: VideoEvents): VideoConnection {
		const receiver: FrameReceiver = new FrameReceiver(iceServers, events, (unit) => receiver === this.#source && this.#received(unit));
		return receiver;
	}

	openSocketVideo(transport: Exclude<VideoTransport, 'webrtc'>, events: SocketVideoEvents): Promise<SocketVideo | undefined> {
		let codec: ReceivedUnit['codec'] = 'h264';
		let hasPicture = false;
		const video: SocketVideo & { readonly requestKeyframe: () => void } = {
			codecs: ['h264', 'vp8'],
			unit: ({ rtpTimestamp, format, data }) => {
				codec = format === undefined ? codec : format.codecString === 'vp8' ? 'vp8' : 'h264';
				if (!hasPicture) {
					hasPicture = true;
					events.onPicture();
				}
				if (video === this.#source) {
					this.#received({ codec, data, isKeyframe: format !== undefined, rtpTimestamp });
				}
			},
			requestKeyframe: events.onKeyframeNeeded,
			close: () => undefined,
		};
		// Programs take access units as they are.
		return Promise.resolve(transport === 'websocket' ? video : undefined);
	}

	use(source: VideoConnection | SocketVideo): void {
		this.#source = source;
		this.#requestKeyframe = 'requestKeyframe' in source ? () => (source as FrameReceiver).requestKeyframe() : () => undefined;
	}

	show(): void {
		// Whoever reads is shown what comes.
	}

	announced(meta: FrameMeta): void {
		this.#records.set(meta.rtp_timestamp, meta);
		for (const oldest of this.#records.keys()) {
			if (this.#records.size <= MOST_RECORDS) {
				break;
			}
			this.#records.delete(oldest);
		}
		if (this.#held?.unit.rtpTimestamp === meta.rtp_timestamp) {
			this.#release();
		}
	}

	close(): void {
		this.#isClosed = true;
		this.#release();
		this.#readers.forEach((reader) => reader.wake?.());
	}

	/** From the next key frame on. A reader that is too slow loses frames up to a later one, and never slows the others. */
	async* read(signal: AbortSignal | undefined): AsyncGenerator<EncodedFrame, undefined> {
		const reader: Reader = { waiting: [], wake: undefined, needsKeyframe: true };
		const wake = (): void => reader.wake?.();
		this.#readers.add(reader);
		signal?.addEventListener('abort', wake, { once: true });
		this.#requestKeyframe();
		try {
			while (signal?.aborted !== true) {
				const next = reader.waiting.shift();
				if (next !== undefined) {
					this.#shown(next.frame.rtpTimestamp, next.receivedAtMs);
					yield next.frame;
				} else if (this.#isClosed) {
					return undefined;
				} else {
					await new Promise<void>((resolve) => {
						reader.wake = resolve;
					});
					reader.wake = undefined;
				}
			}
			return undefined;
		} finally {
			signal?.removeEventListener('abort', wake);
			this.#readers.delete(reader);
		}
	}

	#received(unit: ReceivedUnit): void {
		this.#release();
		const receivedAtMs = performance.now();
		if (this.#records.has(unit.rtpTimestamp)) {
			this.#hand(unit, receivedAtMs);
		} else {
			this.#held = { unit, receivedAtMs, timer: setTimeout(() => this.#release(), RECORD_PATIENCE_MS) };
		}
	}

	#release(): void {
		const held = this.#held;
		this.#held = undefined;
		clearTimeout(held?.timer);
		if (held !== undefined) {
			this.#hand(held.unit, held.receivedAtMs);
		}
	}

	#hand(unit: ReceivedUnit, receivedAtMs: number): void {
		const frame: EncodedFrame = { kind: 'encoded', ...unit, meta: this.#records.get(unit.rtpTimestamp) };
		this.#records.delete(unit.rtpTimestamp);
		for (const reader of this.#readers) {
			if (reader.waiting.length >= MOST_WAITING_FRAMES) {
				reader.waiting.length = 0;
				reader.needsKeyframe = true;
				this.#requestKeyframe();
			}
			if (!reader.needsKeyframe || frame.isKeyframe) {
				reader.needsKeyframe = false;
				reader.waiting.push({ frame, receivedAtMs });
				reader.wake?.();
			}
		}
	}

	#shown(rtpTimestamp: number, receivedAtMs: number): void {
		this.#frames += 1;
		const nowMs = performance.now();
		this.#onShown({ rtpTimestamp, atMs: nowMs, receivedAtMs, decodeMs: undefined, presentedAtMs: nowMs, presentedFrames: this.#frames });
	}
}
