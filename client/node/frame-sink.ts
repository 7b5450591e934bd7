/** The video of a session in Node: frames, joined with their records, to everyone who reads them. */
import type { FrameMeta } from '../../src/protocol/messages.js';
import { EventStream, type Enqueue } from '../event-stream.js';
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

type Waiting = { readonly frame: EncodedFrame; readonly receivedAtMs: number };

/** The queue for what builds upon each other: whoever is too far behind has nothing more until a key frame, which is asked for. */
const upToKeyframe = (requestKeyframe: () => void) => (): Enqueue<Waiting> => {
	let needsKeyframe = true;
	return (waiting, item) => {
		if (waiting.length >= MOST_WAITING_FRAMES) {
			waiting.length = 0;
			needsKeyframe = true;
			requestKeyframe();
		}
		if (!needsKeyframe || item.frame.isKeyframe) {
			needsKeyframe = false;
			waiting.push(item);
		}
	};
};

export class FrameSink implements VideoSink {
	readonly #onShown: (frame: ShownFrame) => void;
	readonly #records = new Map<number, FrameMeta>();
	readonly #stream = new EventStream<Waiting>(upToKeyframe(() => this.#requestKeyframe()));
	/** The source whose frames count. */
	#source: VideoConnection | SocketVideo | undefined;
	#requestKeyframe: () => void = () => undefined;
	/** The frame that waits for its record. */
	#held: { readonly unit: ReceivedUnit; readonly receivedAtMs: number; readonly timer: ReturnType<typeof setTimeout> } | undefined;
	#frames = 0;

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
		this.#release();
		this.#stream.close();
	}

	/** From the next key frame on. A reader that is too slow loses frames up to a later one, and never slows the others. */
	async* read(signal: AbortSignal | undefined): AsyncGenerator<EncodedFrame, undefined> {
		const frames = this.#stream.read(signal);
		this.#requestKeyframe();
		for await (const { frame, receivedAtMs } of frames) {
			this.#shown(frame.rtpTimestamp, receivedAtMs);
			yield frame;
		}
		return undefined;
	}

	#received(unit: ReceivedUnit): void {
		this.#release();
		const receivedAtMs = performance.now();
		if (this.#records.has(unit.rtpTimestamp)) {
			this.#hand(unit, receivedAtMs);
		} else {
			this.#held = { unit, receivedAtMs, timer: setTimeout(() => this.#giveUp(unit), RECORD_PATIENCE_MS) };
		}
	}

	/** A process that was busy has not read yet what came meanwhile: sockets are read between timers and `setImmediate`. */
	#giveUp(unit: ReceivedUnit): void {
		setImmediate(() => {
			if (this.#held?.unit === unit) {
				this.#release();
			}
		});
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
		this.#stream.emit({ frame, receivedAtMs });
	}

	#shown(rtpTimestamp: number, receivedAtMs: number): void {
		this.#frames += 1;
		const nowMs = performance.now();
		this.#onShown({ rtpTimestamp, atMs: nowMs, receivedAtMs, decodeMs: undefined, presentedAtMs: nowMs, presentedFrames: this.#frames });
	}
}
