/**
 * Access units of the control socket, decoded by WebCodecs (https://www.w3.org/TR/webcodecs/) into a track, so that applications show them as
 * they show WebRTC. Chromium writes pictures into a track (MediaStreamTrackGenerator) without copying them, and says for each which it shows;
 * elsewhere they are drawn into a canvas that is captured.
 */
import { TurbocastError } from '../src/protocol/errors.js';
import type { UnitFormat, VideoUnit } from '../src/protocol/video-unit.js';
import type { SocketCodec, SocketVideo, SocketVideoEvents } from './platform.js';
import { FrameTimes } from './frame-times.js';

/** Pictures inside the decoder: half a second at 16 frames a second. A decoder that is further behind begins again at a key frame. */
const MOST_DECODING = 8;
/** What this server sends of each codec: constrained baseline, level 3.1. */
const CODEC_STRINGS: { readonly [codec in SocketCodec]: string } = { h264: 'avc1.42e01f', vp8: 'vp8' };

type TrackWriter = { readonly track: MediaStreamTrack; readonly keepsTimes: boolean; readonly write: (frame: VideoFrame) => void };
type Generator = MediaStreamTrack & { readonly writable: WritableStream<VideoFrame> };

const openTrack = (): TrackWriter | undefined => {
	const { MediaStreamTrackGenerator: TrackGenerator } = globalThis as { MediaStreamTrackGenerator?: new (options: { kind: 'video' }) => Generator };
	if (TrackGenerator !== undefined) {
		const track = new TrackGenerator({ kind: 'video' });
		const writer = track.writable.getWriter();
		// The track takes each picture over; one that comes after its end is let go of here.
		return { track, keepsTimes: true, write: (frame) => void writer.write(frame).catch(() => frame.close()) };
	}
	const canvas = document.createElement('canvas');
	const context = canvas.getContext('2d', { alpha: false });
	const track = context === null ? undefined : canvas.captureStream?.(0).getVideoTracks()[0] as CanvasCaptureMediaStreamTrack | undefined;
	return context === null || track === undefined ? undefined : {
		track,
		keepsTimes: false,
		write: (frame) => {
			if (canvas.width !== frame.displayWidth || canvas.height !== frame.displayHeight) {
				canvas.width = frame.displayWidth;
				canvas.height = frame.displayHeight;
			}
			context.drawImage(frame, 0, 0);
			frame.close();
			track.requestFrame();
		},
	};
};

export class WebCodecsVideo implements SocketVideo {
	readonly codecs: SocketCodec[];
	readonly times: FrameTimes;
	readonly track: MediaStreamTrack;
	readonly #writer: TrackWriter;
	readonly #events: SocketVideoEvents;
	#decoder: VideoDecoder | undefined;
	#format: UnitFormat | undefined;
	#needsKeyframe = true;
	#hasPicture = false;
	#isClosed = false;

	private constructor(codecs: SocketCodec[], writer: TrackWriter, events: SocketVideoEvents) {
		this.codecs = codecs;
		this.#writer = writer;
		this.track = writer.track;
		this.times = new FrameTimes(writer.keepsTimes);
		this.#events = events;
	}

	/** `undefined` where there is no WebCodecs (it needs a secure context), or none for a codec of ours. */
	static async open(events: SocketVideoEvents): Promise<WebCodecsVideo | undefined> {
		if (typeof VideoDecoder === 'undefined') {
			return undefined;
		}
		const all = Object.entries(CODEC_STRINGS) as [SocketCodec, string][];
		const known = await Promise.all(all.map(async ([codec, codecString]) =>
			(await VideoDecoder.isConfigSupported({ codec: codecString }).catch(() => undefined))?.supported === true ? [codec] : []));
		const codecs = known.flat();
		const writer = codecs.length === 0 ? undefined : openTrack();
		return writer === undefined ? undefined : new WebCodecsVideo(codecs, writer, events);
	}

	unit({ rtpTimestamp, format, data }: VideoUnit): void {
		if (this.#isClosed || (this.#needsKeyframe && format === undefined)) {
			return;
		}
		if ((this.#decoder?.decodeQueueSize ?? 0) > MOST_DECODING && format === undefined) {
			this.#lost();
			return;
		}
		if (format !== undefined && (this.#decoder?.state !== 'configured' || format.codecString !== this.#format?.codecString || format.width !== this.#format.width || format.height !== this.#format.height)) {
			this.#configure(format);
		}
		this.#needsKeyframe = false;
		this.#decoder?.decode(new EncodedVideoChunk({ type: format === undefined ? 'delta' : 'key', timestamp: this.times.received(rtpTimestamp), data }));
	}

	close(): void {
		this.#isClosed = true;
		if (this.#decoder !== undefined && this.#decoder.state !== 'closed') {
			this.#decoder.close();
		}
		this.track.stop();
	}

	#configure(format: UnitFormat): void {
		this.#format = format;
		if (this.#decoder === undefined || this.#decoder.state === 'closed') {
			this.#decoder = new VideoDecoder({
				output: (frame) => this.#decoded(frame),
				error: (error) => {
					console.warn('turbocast: the decoder lost the picture.', error);
					this.#lost();
				},
			});
		}
		this.#decoder.configure({ codec: format.codecString, codedWidth: format.width, codedHeight: format.height, optimizeForLatency: true });
	}

	#decoded(frame: VideoFrame): void {
		if (this.#isClosed) {
			frame.close();
			return;
		}
		this.times.decoded(frame.timestamp);
		this.#writer.write(frame);
		if (!this.#hasPicture) {
			this.#hasPicture = true;
			this.#events.onPicture();
		}
	}

	/** Waits for a key frame, and asks for one. */
	#lost(): void {
		if (!this.#isClosed) {
			this.#needsKeyframe = true;
			if (this.#hasPicture) {
				this.#events.onKeyframeNeeded();
			} else {
				this.#events.onFailed(new TurbocastError('transport_failed', 'The decoder of this browser does not take this video.'));
			}
		}
	}
}
