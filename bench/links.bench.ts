/**
 * The picture on real networks: a stream of 480x832 at 16 frames a second and 2 Mbit/s, and one of the product's own size, over links made in code, to a
 * Chromium that writes down when each picture was on the screen. Each row stands beside its goal.
 *
 *     npm run bench -- links [--only ROW] [--seconds S] [--viewers N] [--one-by-one]
 *
 * --one-by-one: without UDP segmentation, a call for each packet. Rows: localhost, own-size, loss-5, loss-10, outages, narrow, join, viewers. Added latency is from the moment at which a
 * frame's turn came on the server (the queue that paces generation is not counted) to that at which the browser expects it on the screen.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { launchChromium } from '../test/browser/chromium.js';
import { Receiver } from '../test/transport/receiver.js';
import { SimulatedLink, type LinkConditions } from '../test/transport/simulated-link.js';
import { processorSeconds } from './processes.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';
import { FPS, openPage, viewOf, WatchedStream, type StreamOptions, type View } from './watched-stream.js';

type Row = readonly [what: string, goal: string, measured: string, verdict: string];

const { values: given } = parseArgs({
	options: { only: { type: 'string' }, seconds: { type: 'string', default: '60' }, viewers: { type: 'string', default: '50' }, trace: { type: 'boolean', default: false }, sinks: { type: 'boolean', default: false }, 'one-by-one': { type: 'boolean', default: false } },
});
const seconds = Number(given.seconds);
const segmentation = given['one-by-one'] !== true;
const BIG: StreamOptions = { segmentation, width: 832, height: 480, bitrateBps: 2_000_000, floorBps: 500_000, chunkGenerationMs: () => 450 };
const OWN: StreamOptions = { segmentation, width: 256, height: 256, bitrateBps: 1_200_000, floorBps: 300_000, chunkGenerationMs: () => 450 };
const SETTLE_MS = 4000;
const SEED = 7;
/** 40 ms there and back. */
const FAR: LinkConditions = { delayMs: 20 };

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const met = (isMet: boolean): string => (isMet ? 'met' : 'missed');
const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), 0);

/** Plays to one page over one link, and hands over what is to be measured from. */
const watch = async <T>(options: StreamOptions, link: SimulatedLink | undefined, measure: (parts: { stream: WatchedStream; view: (fromMs: number, toMs: number) => Promise<View>; startMs: number }) => Promise<T>): Promise<T> => {
	await using stream = await WatchedStream.open(options);
	await using browser = await launchChromium();
	stream.link = link;
	const page = await openPage(browser, stream);
	await page.evaluate(() => globalThis.join());
	await pause(SETTLE_MS);
	const result = await measure({ stream, view: (fromMs, toMs) => viewOf(page, stream, fromMs, toMs), startMs: performance.now() });
	if (given.trace === true) {
		console.log(JSON.stringify({ received: await page.evaluate(() => globalThis.received()), link: link?.counts, losses: stream.losses, keyframes: stream.keyframes, encoded: stream.encoded, packets: stream.transport.counts() }));
	}
	return result;
};

const videoBps = (stream: WatchedStream, fromMs: number, toMs: number): number =>
	([...stream.sent.values()].filter(({ atMs }) => atMs >= fromMs && atMs < toMs).reduce((sum, { bytes }) => sum + bytes, 0) * 8000) / (toMs - fromMs);

const local = (name: string, options: StreamOptions) => (): Promise<Row[]> =>
	watch(options, undefined, async ({ stream, view, startMs }) => {
		await pause(seconds * 1000);
		const { addedMs, gapsMs } = await view(startMs, performance.now());
		const [p50, p95] = [percentile(addedMs, 0.5), percentile(addedMs, 0.95)];
		return [[`added latency, localhost, ${name}`, 'p50 <= 20 ms, p95 <= 40 ms', `${medianAndP95(addedMs)} ms (${addedMs.length} pictures, ${(videoBps(stream, startMs, performance.now()) / 1e6).toFixed(2)} Mbit/s, longest gap ${most(gapsMs).toFixed(0)} ms)`, met(p50 <= 20 && p95 <= 40)]];
	});

const lossy = (loss: number, gapGoalMs: number, latencyGoalMs: number) => (): Promise<Row[]> =>
	watch(BIG, new SimulatedLink(SEED, { ...FAR, loss }), async ({ view, startMs }) => {
		await pause(seconds * 1000);
		const { addedMs, gapsMs } = await view(startMs, performance.now());
		const p95 = percentile(addedMs, 0.95);
		return [[`${loss * 100} % loss, 40 ms round trip`, `no freeze over ${gapGoalMs} ms, p95 <= ${latencyGoalMs} ms`, `longest gap ${most(gapsMs).toFixed(0)} ms, added ${medianAndP95(addedMs)} ms (${addedMs.length} pictures)`, met(most(gapsMs) <= gapGoalMs && p95 <= latencyGoalMs)]];
	});

const OUTAGE_MS = 300;
const BETWEEN_OUTAGES_MS = 10_000;

const outages = (): Promise<Row[]> => {
	const link = new SimulatedLink(SEED, FAR);
	return watch(BIG, link, async ({ view, startMs }) => {
		const backMs: number[] = [];
		for (let count = 0; count < Math.max(1, Math.floor((seconds * 1000) / BETWEEN_OUTAGES_MS)); count += 1) {
			await pause(BETWEEN_OUTAGES_MS - OUTAGE_MS);
			link.become({ ...FAR, isDown: true });
			await pause(OUTAGE_MS);
			link.become(FAR);
			const endedMs = performance.now();
			await pause(2000);
			// Frames that were under way are shown after the end too: the picture is back with the first that was sent in the outage or later.
			const { shown } = await view(endedMs, performance.now());
			const back = shown.find(({ sentAtMs }) => sentAtMs >= endedMs - OUTAGE_MS);
			backMs.push(back === undefined ? Number.POSITIVE_INFINITY : back.atMs - performance.timeOrigin - endedMs);
		}
		const { gapsMs } = await view(startMs, performance.now());
		return [['300 ms outage every 10 s', 'picture back <= 400 ms after each', `back after ${medianAndP95(backMs)} ms, at most ${most(backMs).toFixed(0)} (${backMs.length} outages; longest gap ${most(gapsMs).toFixed(0)} ms)`, met(most(backMs) <= 400)]];
	});
};

const narrow = (): Promise<Row[]> => {
	const wide: LinkConditions = { ...FAR, rateBps: 3_000_000, queueMs: 400 };
	const link = new SimulatedLink(SEED, wide);
	const phaseMs = (seconds * 1000) / 4;
	return watch(BIG, link, async ({ stream, view, startMs }) => {
		const trace = setInterval(() => {
			if (given.trace === true) {
				const [viewer] = stream.viewers;
				console.log(`${((performance.now() - startMs) / 1000).toFixed(1)} s  estimate ${((viewer?.bandwidthBps ?? Number.NaN) / 1000).toFixed(0)} kbit/s  in force ${(stream.bitrateBps / 1000).toFixed(0)} kbit/s  encoded ${stream.encoded}  backlog ${viewer?.backlogMs.toFixed(0)} ms  video ${(videoBps(stream, performance.now() - 500, performance.now()) / 1000).toFixed(0)} kbit/s  overflowed ${link.counts.overflowed} ${JSON.stringify(stream.losses)} keys ${stream.keyframes}`);
			}
		}, 500);
		await pause(phaseMs);
		link.become({ ...wide, rateBps: 800_000 });
		const narrowMs = performance.now();
		await pause(2 * phaseMs);
		link.become(wide);
		const wideMs = performance.now();
		await pause(Math.max(phaseMs, 12_000));
		clearInterval(trace);
		const endMs = performance.now();
		const whole = await view(startMs, endMs);
		const after3s = await view(narrowMs + 3000, wideMs);
		const narrowBps = videoBps(stream, narrowMs + 3000, wideMs);
		// Back: the first second from which the rate is there.
		let backMs = Number.POSITIVE_INFINITY;
		for (let atMs = wideMs; atMs + 1000 <= endMs && backMs === Number.POSITIVE_INFINITY; atMs += 250) {
			if (videoBps(stream, atMs, atMs + 1000) >= 0.75 * BIG.bitrateBps) {
				backMs = atMs + 1000 - wideMs;
			}
		}
		const p95 = percentile(after3s.addedMs, 0.95);
		return [
			['link 3 to 0.8 to 3 Mbit/s: longest freeze', '<= 1 s', `${most(whole.gapsMs).toFixed(0)} ms`, met(most(whole.gapsMs) <= 1000)],
			['added latency from 3 s after the drop', '<= 200 ms', `${medianAndP95(after3s.addedMs)} ms`, met(p95 <= 200)],
			['rate of the video while narrow', '>= 600 kbit/s', `${(narrowBps / 1000).toFixed(0)} kbit/s, ${(after3s.shown.length / ((wideMs - narrowMs - 3000) / 1000)).toFixed(1)} pictures a second`, met(narrowBps >= 600_000)],
			['1.5 Mbit/s again after the link is wide again', '<= 8 s', `${(backMs / 1000).toFixed(1)} s`, met(backMs <= 8000)],
		];
	});
};

const JOINS = 20;

const join = async (): Promise<Row[]> => {
	await using stream = await WatchedStream.open(BIG);
	await using browser = await launchChromium();
	const first = await openPage(browser, stream);
	await first.evaluate(() => globalThis.join());
	const late = await openPage(browser, stream);
	const firstPictureMs: number[] = [];
	for (let count = 0; count < Math.min(JOINS, Math.ceil(seconds / 2)); count += 1) {
		await pause(500 + 40 * count);
		firstPictureMs.push(await late.evaluate(() => globalThis.join()));
	}
	return [['late join: connection to first picture', '<= 300 ms', `${medianAndP95(firstPictureMs)} ms, at most ${most(firstPictureMs).toFixed(0)} (${firstPictureMs.length} joins)`, met(most(firstPictureMs) <= 300)]];
};

/** The other side of `viewers`, a process of the lowest priority: peers up to the handshake, which count packets and throw them away. */
const beSinks = async (): Promise<void> => {
	const [{ url, viewers }] = (await once(process, 'message')) as [{ url: string; viewers: number }];
	let packets = 0;
	for (let index = 0; index < viewers; index += 1) {
		const receiver = new Receiver('h264');
		await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
		const answer = await (await fetch(`${url}offer`, { method: 'POST', body: receiver.connection.localDescription?.sdp ?? '' })).text();
		receiver.losePackets(() => {
			packets += 1;
			return true;
		});
		await receiver.connection.setRemoteDescription({ type: 'answer', sdp: answer });
		await receiver.until(() => receiver.connection.connectionState === 'connected');
	}
	process.send?.('connected');
	process.on('message', () => process.send?.(packets));
};

const viewers = async (): Promise<Row[]> => {
	const count = Number(given.viewers);
	await using stream = await WatchedStream.open(BIG);
	const sinks = fork(fileURLToPath(import.meta.url), ['--sinks'], { execArgv: [] });
	sinks.send({ url: stream.url, viewers: count });
	await once(sinks, 'message');
	// Not before: handshakes at the lowest priority take minutes beside anything else.
	for (const task of readdirSync(`/proc/${sinks.pid}/task`)) {
		setPriority(Number(task), constants.priority.PRIORITY_LOW);
	}
	await pause(SETTLE_MS);
	const packets = async (): Promise<number> => {
		sinks.send('report');
		return ((await once(sinks, 'message')) as [number])[0];
	};
	const loop = monitorEventLoopDelay({ resolution: 10 });
	loop.enable();
	const before = { cpu: process.cpuUsage(), atMs: performance.now(), encoded: stream.encoded, packets: await packets(), sent: stream.transport.counts().sent, encoder: processorSeconds(stream.encoderPid ?? process.pid) };
	await pause(seconds * 1000);
	const used = process.cpuUsage(before.cpu);
	const tookMs = performance.now() - before.atMs;
	loop.disable();
	const share = (used.user + used.system) / 1000 / tookMs;
	const encodedPerSecond = ((stream.encoded - before.encoded) * 1000) / tookMs;
	const sentPackets = stream.transport.counts().sent - before.sent;
	const row: Row = [`${count} viewers of 480x832 at 2 Mbit/s`, '<= 40 % of one core for sending, one encode', `${(100 * share).toFixed(0)} % of a core (${(used.system / 10 / tookMs).toFixed(0)} in the kernel, with what it does for the sinks), ${((used.user + used.system) / sentPackets).toFixed(1)} us a packet, ${encodedPerSecond.toFixed(1)} frames encoded a second, ${(sentPackets / tookMs).toFixed(1)} packets a millisecond, ${((await packets()) - before.packets)} of ${sentPackets} arrived, ${(videoBps(stream, before.atMs, performance.now()) / 1e6).toFixed(2)} Mbit/s, event loop p99 ${Math.max(0, loop.percentile(99) / 1e6 - 10).toFixed(1)} ms, encoder ${((100_000 * (processorSeconds(stream.encoderPid ?? process.pid) - before.encoder)) / tookMs).toFixed(0)} % of a core`, met(share <= 0.4)];
	sinks.kill();
	return [row];
};

const ROWS: { readonly [name: string]: () => Promise<Row[]> } = {
	'localhost': local('480x832', BIG), 'own-size': local('256x256', OWN),
	'loss-5': lossy(0.05, 250, 120), 'loss-10': lossy(0.1, 500, 200), outages, narrow, join, viewers,
};

if (given.sinks === true) {
	await beSinks();
} else {
	const names = given.only === undefined ? Object.keys(ROWS) : given.only.split(',');
	printWhere();
	const rows: Row[] = [];
	for (const name of names) {
		const run = ROWS[name];
		if (run === undefined) {
			throw new Error(`There is no row ${name}; there are ${Object.keys(ROWS).join(', ')}.`);
		}
		rows.push(...await run());
	}
	printTable(['case', 'goal', `measured, ${seconds} s each, ${FPS} frames a second`, 'goal met'], rows);
}
