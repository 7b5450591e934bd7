/**
 * The video of a session in a browser: one `MediaStream` for its whole life, and the `<video>` that shows it where the application gave one.
 * Another connection changes only the track in it, so that the picture before stays until there is the next.
 */
import type { FrameMeta } from '../src/protocol/messages.js';
import { DisplayWatch } from './display-watch.js';
import type { MseVideo } from './mse-video.js';
import type { IceServers, ShownFrame, SocketVideo, SocketVideoEvents, VideoConnection, VideoEvents, VideoSink } from './platform.js';
import { VideoReceiver } from './video-receiver.js';
import type { VideoTransport } from './video-transport.js';
import { WebCodecsVideo } from './webcodecs-video.js';

export type BrowserSinkOptions = {
	readonly video: HTMLVideoElement | undefined;
	readonly onReceiver: ((receiver: RTCRtpReceiver) => void) | undefined;
	readonly onShown: (frame: ShownFrame) => void;
};

type Source = VideoReceiver | WebCodecsVideo | MseVideo;

export class BrowserSink implements VideoSink {
	readonly stream = new MediaStream();
	readonly #options: BrowserSinkOptions;
	readonly #display: DisplayWatch | undefined;
	#source: Source | undefined;
	#isShowing = false;

	constructor(options: BrowserSinkOptions) {
		this.#options = options;
		this.#display = options.video === undefined ? undefined : new DisplayWatch(options.video, options.onShown);
	}

	open(iceServers: IceServers, events: VideoEvents): VideoReceiver {
		const receiver = new VideoReceiver(iceServers, events);
		this.#options.onReceiver?.(receiver.receiver);
		return receiver;
	}

	async openSocketVideo(transport: Exclude<VideoTransport, 'webrtc'>, events: SocketVideoEvents): Promise<SocketVideo | undefined> {
		if (transport === 'websocket') {
			return WebCodecsVideo.open(events);
		}
		// Few need it: fetched when it is wanted.
		const { MseVideo } = await import('./mse-video.js');
		return MseVideo.open(this.#options.video, events);
	}

	use(source: VideoConnection | SocketVideo): void {
		const before = this.#source;
		this.#source = source as Source;
		const { track } = this.#source;
		if (this.#display !== undefined) {
			this.#display.times = 'times' in this.#source ? this.#source.times : undefined;
		}
		if (track !== undefined && track !== before?.track) {
			this.stream.addTrack(track);
			this.stream.getTracks().filter((other) => other !== track).forEach((other) => this.stream.removeTrack(other));
		}
		const { video } = this.#options;
		if (video !== undefined && (this.#isShowing || (video.srcObject === null && video.currentSrc === ''))) {
			this.#attach();
		}
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
		const source = this.#source;
		if (video === undefined || source === undefined) {
			return;
		}
		if ('attach' in source) {
			source.attach();
		} else if (video.srcObject !== this.stream) {
			video.srcObject = this.stream;
		} else {
			return;
		}
		// Refused without a gesture unless muted: the application sees its own video not playing.
		video.play().catch(() => undefined);
		this.#display?.start();
	}
}
