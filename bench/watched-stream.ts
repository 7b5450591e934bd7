/**
 * A stream as the product sends it, from frames that are there already: pacer, encoder process, playout, WebRTC; and a page in Chromium that watches it
 * and writes down when each frame was shown.
 */
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { Browser, Page } from 'playwright-core';
import type { RTCPeerConnection } from 'werift';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import { startEncoders } from '../src/media/encoder-host.js';
import { framesPerChunk } from '../src/model/spec.js';
import { openModelFolder } from '../src/model/model-folder.js';
import { ChangeLog } from '../src/server/change-log.js';
import { EncoderShelf } from '../src/server/encoder-shelf.js';
import { Encodes } from '../src/server/encodes.js';
import { FrameLine } from '../src/server/frame-line.js';
import { KeyframeGate } from '../src/server/keyframe-gate.js';
import { runPlayout } from '../src/server/playout-loop.js';
import type { Viewer } from '../src/transport/transport.js';
import { createWebRtcTransport } from '../src/transport/webrtc.js';
import type { SimulatedLink } from '../test/transport/simulated-link.js';
import { repositoryRoot } from '../test/repository.js';
import { frameSource } from './frame-file.js';

export const FPS = 16;

export type StreamOptions = {
	readonly width: number;
	readonly height: number;
	readonly bitrateBps: number;
	readonly floorBps: number;
	/** How long the frames of the next chunk take to generate. */
	readonly chunkGenerationMs: () => number;
	/** Whether the packets of a picture go to the system together. Default true. */
	readonly segmentation?: boolean;
};

/** What was sent of one frame. */
export type SentFrame = { readonly takenAtEpochMs: number; readonly atMs: number; bytes: number };

/** Epoch milliseconds of the monotonic clock; the page counts in the same. */
const epochMs = (monotonicMs: number): number => performance.timeOrigin + monotonicMs;

/** The page: one video, and the moment of every picture. The service answers offers at /offer. */
const PAGE = `<!doctype html><video autoplay muted playsinline style="width: 416px"></video><script>
const video = document.querySelector('video');
globalThis.shown = [];
globalThis.connection = undefined;
const watch = (now, metadata) => {
	// Date.now() and performance.now() are read together: both processes share the wall clock, not the monotonic one's origin.
	shown.push({ rtp: metadata.rtpTimestamp, atMs: Date.now() + (metadata.expectedDisplayTime - performance.now()), width: metadata.width });
	video.requestVideoFrameCallback(watch);
};
video.requestVideoFrameCallback(watch);
globalThis.join = async () => {
	globalThis.connection?.close();
	const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
	globalThis.connection = connection;
	connection.addTransceiver('video', { direction: 'recvonly' });
	let connectedAtMs = 0;
	connection.onconnectionstatechange = () => { if (connection.connectionState === 'connected') { connectedAtMs = Date.now(); } };
	connection.ontrack = ({ streams: [stream], track }) => { video.srcObject = stream ?? new MediaStream([track]); };
	await connection.setLocalDescription(await connection.createOffer());
	await new Promise((resolve) => { connection.onicegatheringstatechange = () => { if (connection.iceGatheringState === 'complete') { resolve(); } }; setTimeout(resolve, 500); });
	const before = shown.length;
	const answer = await fetch('/offer', { method: 'POST', body: connection.localDescription.sdp });
	await connection.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
	while (connectedAtMs === 0 || shown.length === before) { await new Promise((resolve) => setTimeout(resolve, 5)); }
	return shown[before].atMs - connectedAtMs;
};
globalThis.received = async () => {
	const stats = [...(await connection.getStats()).values()].find(({ type, kind }) => type === 'inbound-rtp' && kind === 'video');
	return { bytes: stats.bytesReceived, lost: stats.packetsLost, nacks: stats.nackCount, plis: stats.pliCount, freezes: stats.freezeCount, jitterMs: 1000 * stats.jitterBufferDelay / Math.max(1, stats.jitterBufferEmittedCount), decodeMs: 1000 * stats.totalDecodeTime / Math.max(1, stats.framesDecoded), decoded: stats.framesDecoded };
};
</script>`;

export type Shown = { readonly rtp: number; readonly atMs: number; readonly width: number };
export type Received = { readonly bytes: number; readonly lost: number; readonly nacks: number; readonly plis: number; readonly freezes: number; readonly jitterMs: number; readonly decodeMs: number; readonly decoded: number };

declare global {
	var shown: Shown[];
	var join: () => Promise<number>;
	var received: () => Promise<Received>;
}

export class WatchedStream implements AsyncDisposable {
	readonly line: FrameLine;
	readonly sent = new Map<number, SentFrame>();
	readonly viewers: Viewer[] = [];
	/** Of the viewer that comes next. */
	link: SimulatedLink | undefined;
	losses: { [kind: string]: number } = {};
	keyframes = 0;
	/** In force. */
	bitrateBps = 0;
	/** Encoded, whoever got it. */
	encoded = 0;
	readonly encoderPid: number | undefined;
	readonly transport: ReturnType<typeof createWebRtcTransport>;
	readonly url: string;
	readonly #close: () => Promise<void>;

	private constructor(parts: Pick<WatchedStream, 'line' | 'transport' | 'url' | 'encoderPid'> & { close: () => Promise<void> }) {
		this.line = parts.line;
		this.transport = parts.transport;
		this.url = parts.url;
		this.encoderPid = parts.encoderPid;
		this.#close = parts.close;
	}

	static async open({ width, height, bitrateBps, floorBps, chunkGenerationMs, segmentation = true }: StreamOptions): Promise<WatchedStream> {
		const source = frameSource(width, height);
		const { spec: model } = await openModelFolder(`${repositoryRoot}/models/toybox`);
		const abort = new AbortController();
		const line = new FrameLine({ model, maxLeadMs: 1000, firstRtpTimestamp: 0xffff_0000, clock: systemClock });
		const encoders = await startEncoders({ implementation: 'auto', log: silentLog, clock: systemClock });
		const keyframes = new KeyframeGate();
		const encodes = new Encodes({ floorBps, mostBps: bitrateBps });
		const shelf = new EncoderShelf(encoders, { width, height, fps: FPS, bitrateBps });
		const transport = createWebRtcTransport({
			announceAddresses: ['127.0.0.1'], fps: FPS, mostBps: bitrateBps, segmentation, log: silentLog, clock: systemClock,
			onConnection: (connection: RTCPeerConnection) => stream.link?.attach(connection),
		});
		const server = createServer((request, response) => {
			if (request.url !== '/offer') {
				response.setHeader('content-type', 'text/html').end(PAGE);
				return;
			}
			let sdp = '';
			request.setEncoding('utf8').on('data', (text: string) => (sdp += text)).on('end', () => {
				void stream.answer(sdp, keyframes, encodes).then((answer) => response.end(answer));
			});
		}).listen(0, '127.0.0.1');
		await once(server, 'listening');
		const playout = runPlayout({
			line, changes: new ChangeLog({ prompts: [{ text: 'a cat', weight: 1 }], steps: 1, controls: {}, seed: 1 }), clock: systemClock, keyframes, encodes,
			encoderFor: (name) => shelf.for(name),
			watching: () => stream.viewers.filter(({ state }) => state.kind === 'connected'), isHeadless: () => false,
			onPlayed: ({ rtpTimestamp, takenAtMs }) => {
				stream.sent.set(rtpTimestamp, { takenAtEpochMs: epochMs(takenAtMs), atMs: takenAtMs, bytes: 0 });
			},
			onEncoded: () => undefined,
			onSent: (chunk, _viewers, bps) => {
				stream.bitrateBps = bps;
				const sent = stream.sent.get(chunk.rtpTimestamp);
				if (sent !== undefined) {
					sent.bytes = chunk.data.byteLength;
				}
				stream.encoded += 1;
				stream.keyframes += chunk.isKeyframe ? 1 : 0;
			},
			onLost: (loss) => {
				stream.losses[loss] = (stream.losses[loss] ?? 0) + 1;
			},
			onLoss: (error) => console.error(error.message), onApplied: () => undefined,
		}, abort.signal);
		playout.catch((error: unknown) => console.error(error));
		const generation = (async () => {
			for (let frameId = 0; !abort.signal.aborted;) {
				await line.waitForStart(abort.signal);
				line.chunkStarted();
				const startedMs = performance.now();
				const perChunk = framesPerChunk(model);
				const tookMs = chunkGenerationMs();
				for (let index = 1; index <= perChunk; index += 1, frameId += 1) {
					await systemClock.sleep(startedMs + (tookMs * index) / perChunk - performance.now(), abort.signal);
					line.push(source(frameId));
				}
				line.chunkFinished();
			}
		})();
		generation.catch(() => undefined);
		const stream: WatchedStream = new WatchedStream({
			line, transport, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, encoderPid: encoders.pid,
			close: async () => {
				abort.abort();
				await transport.close();
				await Promise.allSettled([playout, generation]);
				await shelf.close();
				await encoders.close();
				server.closeAllConnections();
				server.close();
			},
		});
		return stream;
	}

	/** The answer to an offer; the viewer is one of the stream's from then on. */
	async answer(sdp: string, keyframes?: KeyframeGate, encodes?: Encodes): Promise<string> {
		const { viewer, answerSdp } = await this.transport.accept(sdp);
		viewer.onKeyframeNeeded(() => keyframes?.request(encodes?.of(viewer) ?? viewer.codec));
		viewer.onState(() => this.line.setWatched(this.viewers.some(({ state }) => state.kind === 'connected')));
		this.viewers.push(viewer);
		return answerSdp;
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.#close();
	}
}

/** A page that watches; `join` resolves with the milliseconds from connection to first picture. */
export const openPage = async (browser: Browser, stream: WatchedStream): Promise<Page> => {
	const page = await browser.newPage();
	await page.goto(stream.url);
	return page;
};

export type View = { readonly addedMs: number[]; readonly gapsMs: number[]; readonly shown: readonly { readonly sentAtMs: number; readonly atMs: number; readonly addedMs: number; readonly width: number }[] };

/** What was shown of what was sent between two moments of the service's clock: latency of each picture, and distances on the screen. */
export const viewOf = async (page: Page, stream: WatchedStream, fromMs: number, toMs: number): Promise<View> => {
	const all = await page.evaluate(() => globalThis.shown);
	const shown = all.flatMap(({ rtp, atMs, width }) => {
		const sent = stream.sent.get(rtp);
		return sent === undefined ? [] : [{ sentAtMs: sent.atMs, atMs, addedMs: atMs - sent.takenAtEpochMs, width }];
	});
	const epoch = (ms: number): number => performance.timeOrigin + ms;
	const inside = shown.filter(({ atMs }) => atMs >= epoch(fromMs) && atMs < epoch(toMs));
	return { shown: inside, addedMs: inside.map(({ addedMs }) => addedMs), gapsMs: inside.slice(1).map(({ atMs }, index) => atMs - (inside[index]?.atMs ?? atMs)) };
};
