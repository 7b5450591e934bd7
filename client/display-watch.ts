/** Tells of every frame that a `<video>` shows (requestVideoFrameCallback), by its RTP timestamp. */
import type { FrameDisplayed } from './session-event.js';

export class DisplayWatch {
	readonly #video: HTMLVideoElement;
	readonly #onFrame: (frame: FrameDisplayed) => void;
	#newestSent: number | undefined;
	#handle: number | undefined;

	constructor(video: HTMLVideoElement, onFrame: (frame: FrameDisplayed) => void) {
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
			const rtpTimestamp = metadata.rtpTimestamp ?? this.#newestSent;
			if (rtpTimestamp !== undefined) {
				this.#onFrame({ type: 'frame.displayed', rtp_timestamp: rtpTimestamp, at_ms: metadata.expectedDisplayTime, presented_frames: metadata.presentedFrames });
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
