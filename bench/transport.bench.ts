/**
 * What sending costs the main process: frames of a usual size to a number of viewers, each a real peer over UDP in a
 * process of its own.
 *
 *     npm run bench -- transport [VIEWERS] [SECONDS]
 *
 * Prints the processor time of this process per second, the time of `send` for all viewers, and how late the event loop is.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import type { EncodedChunk } from '../src/base/frame.js';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import type { Transport, Viewer } from '../src/transport/transport.js';
import { createWebRtcTransport } from '../src/transport/webrtc.js';
import { Receiver } from '../test/transport/receiver.js';
import { medianAndP95, printTable, printWhere } from './report.js';

const FPS = 16;
/** 1.2 Mbit/s at 16 frames a second. */
const FRAME_BYTES = 9400;

/** For what is still under way after the last frame. */
const LAST_FRAMES_MS = 300;

/** The other side, started as `transport.bench.js --viewer`: offers, and counts what arrives. */
const beViewer = async (): Promise<void> => {
	const receiver = new Receiver('h264');
	const transport: Transport = {
		accept: async (offerSdp) => {
			process.send?.({ offerSdp });
			const [message] = (await once(process, 'message')) as [{ answerSdp: string }];
			return { viewer: { state: { kind: 'connected' }, onState: () => () => undefined } as unknown as Viewer, answerSdp: message.answerSdp };
		},
		offer: () => Promise.reject(new Error('not here')),
		counts: () => ({ connected: 0, limited: 0, sent: 0, resent: 0, lost: 0 }),
		close: () => Promise.resolve(),
	};
	await receiver.connect(transport);
	process.on('message', () => {
		process.send?.({ units: receiver.units.length });
		void receiver.connection.close().then(() => process.disconnect());
	});
};

const frame = (frameId: number): EncodedChunk => ({
	codec: 'h264', frameId, isKeyframe: frameId === 0, rtpTimestamp: frameId * 5625, encodeMs: 0,
	data: Buffer.concat([Buffer.from([0, 0, 0, 1, frameId === 0 ? 0x65 : 0x41]), Buffer.alloc(FRAME_BYTES, 0x55)]),
});

const measure = async (viewers: number, seconds: number): Promise<string[]> => {
	const transport = createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: FPS, log: silentLog, clock: systemClock });
	const children = Array.from({ length: viewers }, () => fork(fileURLToPath(import.meta.url), ['--viewer']));
	const connectMs: number[] = [];
	const connected = await Promise.all(children.map(async (child) => {
		const [{ offerSdp }] = (await once(child, 'message')) as [{ offerSdp: string }];
		const startMs = systemClock.nowMs();
		const { viewer, answerSdp } = await transport.accept(offerSdp);
		const isConnected = new Promise<void>((resolve, reject) => {
			viewer.onState((state) => {
				if (state.kind === 'connected') {
					connectMs.push(systemClock.nowMs() - startMs);
					resolve();
				} else if (state.kind === 'closed') {
					reject(new Error(`A viewer could not connect: ${state.reason}.`));
				}
			});
		});
		child.send({ answerSdp });
		await isConnected;
		return viewer;
	}));
	const delay = monitorEventLoopDelay({ resolution: 1 });
	delay.enable();
	const cpu = process.cpuUsage();
	const beganMs = systemClock.nowMs();
	const sendMs: number[] = [];
	const frames = seconds * FPS;
	for (let index = 0; index < frames; index += 1) {
		await systemClock.sleep(beganMs + (index * 1000) / FPS - systemClock.nowMs());
		const chunk = frame(index);
		const startMs = systemClock.nowMs();
		connected.forEach((viewer) => viewer.send(chunk));
		sendMs.push(systemClock.nowMs() - startMs);
	}
	const used = process.cpuUsage(cpu);
	delay.disable();
	await systemClock.sleep(LAST_FRAMES_MS);
	const received = await Promise.all(children.map(async (child) => {
		child.send({ end: true });
		const [{ units }] = (await once(child, 'message')) as [{ units: number }];
		return units;
	}));
	await transport.close();
	return [
		String(viewers), medianAndP95(connectMs), medianAndP95(sendMs), `${((used.user + used.system) / 10_000 / seconds).toFixed(1)} %`,
		(delay.percentile(99) / 1e6).toFixed(1), `${Math.min(...received)} of ${frames}`,
	];
};

if (process.argv.includes('--viewer')) {
	await beViewer();
} else {
	const [most = '4', seconds = '10'] = process.argv.slice(2);
	printWhere();
	const rows: string[][] = [];
	for (let viewers = 1; viewers <= Number(most); viewers *= 2) {
		rows.push(await measure(viewers, Number(seconds)));
	}
	printTable(['viewers', 'ms to connect, median / p95', 'ms to send a frame to all', 'of a core', 'loop delay p99, ms', 'frames received'], rows);
}
