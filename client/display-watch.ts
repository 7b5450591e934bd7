/** Tells of every frame that a `<video>` shows (requestVideoFrameCallback), by its RTP timestamp. */
import type { FrameTimes } from './frame-times.js';
import type { ShownFrame } from './platform.js';

export class DisplayWatch {
	readonly #video: HTMLVideoElement;
	readonly #onFrame: (frame: ShownFrame) => void;
	/** Of pictures that do not come by WebRTC. */
	times: FrameTimes | undefined;
	#newestSent: number | undefined;
	#handle: number | undefined;

	constructor(video: HTMLVideoElement, onFrame: (frame: ShownFrame) => void) {
		this.#video = video;
		this.#onFrame = onFrame;
	}

	/** The newest frame that was announced: stands in where a browser does not tell timestamps (Firefox), so that its figures are early by at most a frame. */
	announced(rtpTimestamp: number): void {
		this.#newestSent = rtpTimestamp;
	}

	start(): void {
		const watch = (_nowMs: number, metadata: VideoFrameCallbackMetadata): void => {
			this.#handle = this.#video.requestVideoFrameCallback(watch);
			const known = this.times?.shown(metadata.mediaTime);
			const rtpTimestamp = this.times === undefined ? metadata.rtpTimestamp ?? this.#newestSent : known?.rtpTimestamp;
			if (rtpTimestamp !== undefined) {
				const { receiveTime, processingDuration, presentationTime, expectedDisplayTime, presentedFrames } = metadata;
				this.#onFrame({
					rtpTimestamp, atMs: expectedDisplayTime, receivedAtMs: known?.receivedAtMs ?? receiveTime,
					decodeMs: processingDuration === undefined ? undefined : processingDuration * 1000,
					presentedAtMs: known?.decodedAtMs ?? presentationTime, presentedFrames,
				});
			}
		};
		this.stop();
		if ('requestVideoFrameCallback' in this.#video) {
			this.#handle = this.#video.requestVideoFrameCallback(watch);
		}
	}

	/** Idempotent. */
	stop(): void {
		if (this.#handle !== undefined) {
			this.#video.cancelVideoFrameCallback(this.#handle);
			this.#handle = undefined;
		}
	}
}
