/** The video of a session in a browser: a `MediaStream`, and the `<video>` that shows it where the application gave one. */
import type { FrameMeta } from '../src/protocol/messages.js';
import { DisplayWatch } from './display-watch.js';
import type { IceServers, ShownFrame, VideoEvents, VideoSink } from './platform.js';
import { VideoReceiver } from './video-receiver.js';

export type BrowserSinkOptions = {
	readonly video: HTMLVideoElement | undefined;
	readonly onReceiver: ((receiver: RTCRtpReceiver) => void) | undefined;
	readonly onShown: (frame: ShownFrame) => void;
};

export class BrowserSink implements VideoSink {
	readonly #options: BrowserSinkOptions;
	readonly #display: DisplayWatch | undefined;
	#receiver: VideoReceiver | undefined;
	#isShowing = false;

	constructor(options: BrowserSinkOptions) {
		this.#options = options;
		this.#display = options.video === undefined ? undefined : new DisplayWatch(options.video, options.onShown);
	}

	get stream(): MediaStream | undefined {
		return this.#receiver?.stream;
	}

	open(iceServers: IceServers, events: VideoEvents): VideoReceiver {
		this.#receiver = new VideoReceiver(iceServers, events);
		this.#options.onReceiver?.(this.#receiver.receiver);
		// A picture that is still shown stays until there is another to start.
		if (this.#isShowing || this.#options.video?.srcObject === null) {
			this.#attach();
		}
		return this.#receiver;
	}

	show(): void {
		this.#isShowing = true;
		this.#attach();
	}

	announced(meta: FrameMeta): void {
		this.#display?.announced(meta.rtp_timestamp);
	}

	close(): void {
		this.#display?.stop();
	}

	#attach(): void {
		const { video } = this.#options;
		const { stream } = this;
		if (video === undefined || stream === undefined || video.srcObject === stream) {
			return;
		}
		video.srcObject = stream;
		// Refused without a gesture unless muted: the application sees its own video not playing.
		video.play().catch(() => undefined);
		this.#display?.start();
	}
}
