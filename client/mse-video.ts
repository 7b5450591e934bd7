/**
 * Access units of the control socket through Media Source Extensions (https://www.w3.org/TR/media-source-2/): for pages without WebCodecs. The
 * browser buffers some 100 ms by itself. H.264 alone: no browser takes VP8 in MP4.
 */
import { TurbocastError } from '../src/protocol/errors.js';
import type { UnitFormat, VideoUnit } from '../src/protocol/video-unit.js';
import { fragment, initSegment, TIMESCALE } from './fragmenter.js';
import { FrameTimes } from './frame-times.js';
import type { SocketCodec, SocketVideo, SocketVideoEvents } from './platform.js';

/** Pictures that wait while the buffer takes one: two seconds at 16 frames a second. Beyond them it begins again at a key frame. */
const MOST_WAITING = 32;
/** Behind what came last, playback runs faster: a jump would decode all since the last key frame, which may be minutes. */
const CATCH_UP = [{ fromS: 1, rate: 2 }, { fromS: 0.35, rate: 1.25 }] as const;
/** So far behind, after a sleep of the page, it jumps all the same. */
const MOST_BEHIND_S = 5;
/** Behind the newest picture after a jump: two frames at 16 frames a second. */
const CUSHION_S = 0.12;
const KEPT_S = 10;
/**
 * What a fragment says that its picture lasts, at least. A picture that begins more than twice this later is refused, with all after it up to a key frame
 * (Media Source Extensions section 3.5.8, step 1.6): a frame may follow one that was hurried past. So a pause of the stream is none of the
 * playback: times go on as if it had not been.
 */
const LEAST_DURATION_US = 62_500;
/** Below twice the duration by more than a tick. */
const ROUNDING_US = 1000;
/** Fragments in a row after which nothing more is there to play: the browser has refused them, and a key frame helps. */
const MOST_REFUSED = 8;
const MIME = (codecString: string): string => `video/mp4; codecs="${codecString}"`;

type MediaSourceClass = typeof MediaSource;

export class MseVideo implements SocketVideo {
	readonly codecs: SocketCodec[] = ['h264'];
	readonly times = new FrameTimes();
	readonly #element: HTMLVideoElement;
	readonly #isOwnElement: boolean;
	readonly #events: SocketVideoEvents;
	readonly #source: MediaSource;
	readonly #url: string;
	readonly #waiting: Uint8Array[] = [];
	#buffer: SourceBuffer | undefined;
	#format: UnitFormat | undefined;
	#needsKeyframe = true;
	#hasPicture = false;
	#sequence = 0;
	#durationUs = LEAST_DURATION_US;
	/** Where what can be played ends, s, and how many fragments have not moved it. */
	#endS = 0;
	#refused = 0;
	#isClosed = false;

	private constructor(Source: MediaSourceClass, element: HTMLVideoElement | undefined, events: SocketVideoEvents) {
		this.#events = events;
		this.#isOwnElement = element === undefined;
		this.#element = element ?? document.createElement('video');
		this.#source = new Source();
		this.#url = URL.createObjectURL(this.#source);
		if (element === undefined) {
			this.#element.muted = true;
			this.attach();
			this.#element.play().catch(() => undefined);
		}
	}

	/** `undefined` where the browser has none for H.264. */
	static open(element: HTMLVideoElement | undefined, events: SocketVideoEvents): MseVideo | undefined {
		const { ManagedMediaSource } = globalThis as { ManagedMediaSource?: MediaSourceClass };
		const Source = typeof MediaSource === 'undefined' ? ManagedMediaSource : MediaSource;
		return Source?.isTypeSupported(MIME('avc1.42e01f')) === true ? new MseVideo(Source, element, events) : undefined;
	}

	/** For applications without a `<video>`, where the browser captures one. */
	get track(): MediaStreamTrack | undefined {
		const { captureStream } = this.#element as HTMLVideoElement & { captureStream?: () => MediaStream };
		return this.#isOwnElement ? captureStream?.call(this.#element).getVideoTracks()[0] : undefined;
	}

	/** Makes the element show it. A source cannot be behind a stream: `srcObject` would win. */
	attach(): void {
		if (this.#element.src !== this.#url) {
			this.#element.srcObject = null;
			// Safari's managed sources play on this device alone.
			this.#element.disableRemotePlayback = true;
			this.#element.src = this.#url;
		}
	}

	unit({ rtpTimestamp, format, data }: VideoUnit): void {
		if (this.#isClosed || (this.#needsKeyframe && format === undefined)) {
			return;
		}
		if (this.#waiting.length >= MOST_WAITING) {
			this.#waiting.length = 0;
			this.#needsKeyframe = true;
			this.#events.onKeyframeNeeded();
			return;
		}
		this.#needsKeyframe = false;
		if (format !== undefined && (format.codecString !== this.#format?.codecString || format.width !== this.#format.width || format.height !== this.#format.height)) {
			const init = initSegment(data, format.width, format.height);
			if (init === undefined) {
				this.#events.onFailed(new TurbocastError('transport_failed', 'A key frame came without its parameter sets.'));
				return;
			}
			this.#format = format;
			this.#waiting.push(init);
			if (!this.#hasPicture) {
				this.#hasPicture = true;
				// Attached now, shown with the first fragment: without an element there is nothing to append to.
				this.#events.onPicture();
			}
		}
		const before = this.times.newestUs;
		const timeUs = this.times.received(rtpTimestamp, 2 * this.#durationUs - ROUNDING_US);
		this.times.decoded(timeUs);
		this.#durationUs = Math.max(LEAST_DURATION_US, timeUs - (before ?? timeUs));
		const ticks = (us: number): number => Math.round((us * TIMESCALE) / 1e6);
		this.#sequence += 1;
		this.#waiting.push(fragment(data, { sequence: this.#sequence, time: ticks(timeUs), duration: ticks(this.#durationUs), isKeyframe: format !== undefined }));
		this.#append();
	}

	close(): void {
		this.#isClosed = true;
		this.#waiting.length = 0;
		URL.revokeObjectURL(this.#url);
		this.#element.playbackRate = 1;
		if (this.#element.src === this.#url && this.#isOwnElement) {
			this.#element.removeAttribute('src');
		}
	}

	#append(): void {
		if (this.#isClosed) {
			return;
		}
		if (this.#source.readyState !== 'open') {
			this.#source.addEventListener('sourceopen', () => this.#append(), { once: true });
			return;
		}
		if (this.#buffer === undefined && this.#format !== undefined) {
			this.#buffer = this.#source.addSourceBuffer(MIME(this.#format.codecString));
			this.#buffer.addEventListener('updateend', () => {
				this.#watch();
				this.#follow();
				this.#append();
			});
		}
		const buffer = this.#buffer;
		if (buffer === undefined || buffer.updating || this.#element.error !== null) {
			if (this.#element.error !== null) {
				this.#events.onFailed(new TurbocastError('transport_failed', `This browser does not play the video (${this.#element.error.message}).`));
			}
			return;
		}
		const next = this.#waiting.shift();
		if (next !== undefined) {
			buffer.appendBuffer(next as Uint8Array<ArrayBuffer>);
		} else if (buffer.buffered.length > 0 && this.#element.currentTime - buffer.buffered.start(0) > 2 * KEPT_S) {
			buffer.remove(0, this.#element.currentTime - KEPT_S);
		}
	}

	/** Asks for a key frame when the browser takes nothing any more. */
	#watch(): void {
		const { buffered } = this.#element;
		const endS = buffered.length > 0 ? buffered.end(buffered.length - 1) : 0;
		this.#refused = endS === this.#endS ? this.#refused + 1 : 0;
		this.#endS = endS;
		if (this.#refused >= MOST_REFUSED && !this.#needsKeyframe) {
			this.#refused = 0;
			this.#needsKeyframe = true;
			this.#events.onKeyframeNeeded();
		}
	}

	/** Stays near what came last. */
	#follow(): void {
		const { buffered } = this.#element;
		if (buffered.length > 0) {
			const end = buffered.end(buffered.length - 1);
			const start = buffered.start(buffered.length - 1);
			const behindS = end - this.#element.currentTime;
			this.#element.playbackRate = CATCH_UP.find(({ fromS }) => behindS > fromS)?.rate ?? 1;
			if ((behindS > MOST_BEHIND_S || this.#element.currentTime < start) && !this.#element.seeking) {
				this.#element.currentTime = Math.max(start, end - CUSHION_S);
			}
		}
	}
}
