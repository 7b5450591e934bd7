/** Looks over the page's shoulder: which frame was shown when, what it looked like, and what the telemetry said of it. */
import type { Page } from 'playwright-core';
import type { FrameMeta } from '../../src/protocol/messages.js';

export type ShownFrame = { readonly rtpTimestamp: number; readonly atMs: number };
export type Snapshot = { readonly rtpTimestamp: number; readonly width: number; readonly height: number; /** Interleaved RGB. */ readonly rgb: Uint8Array };

type Recorder = {
	readonly shown: ShownFrame[];
	readonly metas: FrameMeta[];
	readonly snapshots: { readonly rtpTimestamp: number; readonly width: number; readonly height: number; readonly rgba: string }[];
	/** Pictures still to be taken. */
	wanted: number;
};

declare global {
	var recorder: Recorder;
}

/** Runs in the page, before its own scripts. */
const install = (): void => {
	const recorder: Recorder = { shown: [], metas: [], snapshots: [], wanted: 0 };
	globalThis.recorder = recorder;
	globalThis.RTCPeerConnection = class extends RTCPeerConnection {
		override createDataChannel(label: string, options?: RTCDataChannelInit): RTCDataChannel {
			const channel = super.createDataChannel(label, options);
			channel.addEventListener('message', ({ data }) => recorder.metas.push(JSON.parse(String(data)) as FrameMeta));
			return channel;
		}
	};
	document.addEventListener('DOMContentLoaded', () => {
		const video = document.querySelector('video');
		const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
		if (video === null || context === null) {
			return;
		}
		const watch = (_now: number, metadata: VideoFrameCallbackMetadata): void => {
			video.requestVideoFrameCallback(watch);
			const rtpTimestamp = metadata.rtpTimestamp ?? -1;
			recorder.shown.push({ rtpTimestamp, atMs: metadata.expectedDisplayTime });
			if (recorder.wanted > 0) {
				recorder.wanted -= 1;
				const { width, height } = metadata;
				context.canvas.width = width;
				context.canvas.height = height;
				context.drawImage(video, 0, 0);
				const { data } = context.getImageData(0, 0, width, height);
				let rgba = '';
				for (let at = 0; at < data.length; at += 4096) {
					rgba += String.fromCharCode(...data.subarray(at, at + 4096));
				}
				recorder.snapshots.push({ rtpTimestamp, width, height, rgba: btoa(rgba) });
			}
		};
		video.requestVideoFrameCallback(watch);
	});
};

export class ScreenRecorder {
	readonly #page: Page;

	private constructor(page: Page) {
		this.#page = page;
	}

	/** Before the page is opened. */
	static async install(page: Page): Promise<ScreenRecorder> {
		await page.addInitScript(install);
		return new ScreenRecorder(page);
	}

	shown(): Promise<readonly ShownFrame[]> {
		return this.#page.evaluate(() => globalThis.recorder.shown);
	}

	metas(): Promise<readonly FrameMeta[]> {
		return this.#page.evaluate(() => globalThis.recorder.metas);
	}

	/** Forgets what was shown so far. */
	async clear(): Promise<void> {
		await this.#page.evaluate(() => {
			globalThis.recorder.shown.length = 0;
			globalThis.recorder.metas.length = 0;
			globalThis.recorder.snapshots.length = 0;
		});
	}

	/** The next pictures that are shown. */
	async takeSnapshots(count: number): Promise<Snapshot[]> {
		await this.#page.evaluate((wanted) => {
			globalThis.recorder.snapshots.length = 0;
			globalThis.recorder.wanted = wanted;
		}, count);
		await this.#page.waitForFunction((wanted) => globalThis.recorder.snapshots.length >= wanted, count);
		const snapshots = await this.#page.evaluate(() => globalThis.recorder.snapshots);
		return snapshots.map(({ rgba, ...snapshot }) => {
			const bytes = Buffer.from(rgba, 'base64');
			return { ...snapshot, rgb: new Uint8Array(bytes.filter((_, index) => index % 4 !== 3)) };
		});
	}
}
