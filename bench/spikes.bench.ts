/**
 * A long stream of 256x256 whose generation is as uneven as on a machine that does other things too: chunks take 300 to 550 ms, and one in twenty a second
 * more. Does the picture stand still only then, and no longer than that; does the clock of the stream keep to that of the wall; does memory grow?
 *
 *     npm run bench -- spikes [MINUTES] [SEED]
 *
 * Without a figure, 30 minutes; the same seed gives the same times. A Chromium on the same machine writes down what it showed.
 */
import { launchChromium } from '../test/browser/chromium.js';
import { createRandom } from '../test/model/random-model.js';
import { percentile, printTable, printWhere } from './report.js';
import { openPage, viewOf, WatchedStream } from './watched-stream.js';

const SPIKE_MS = 1000;
const SPIKE_SHARE = 0.05;
const SETTLE_MS = 4000;
/** More than three pictures are missing. */
const FREEZE_MS = 250;
/** A spike is felt until the frames made before it are used up, and the queue has its length again. */
const FELT_AFTER_MS = 1500;
const SAMPLE_MS = 5000;
/** Over which the clock is compared: a frame that a busy machine takes late says nothing of it. */
const CLOCK_WINDOW_MS = 10_000;
const MOST_DRIFT_MS = 20;
const MOST_GROWTH = 1.05;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
const met = (isMet: boolean): string => (isMet ? 'met' : 'missed');

const [minutes = '30', seed = '7'] = process.argv.slice(2);
printWhere();
const random = createRandom(Number(seed));
/** When each began, how long the chunk took. */
const spikes: { readonly atMs: number; readonly tookMs: number }[] = [];
await using stream = await WatchedStream.open({
	width: 256, height: 256, bitrateBps: 1_200_000, floorBps: 300_000,
	chunkGenerationMs: () => {
		const isSpike = random() < SPIKE_SHARE;
		const tookMs = 300 + 250 * random() + (isSpike ? SPIKE_MS : 0);
		if (isSpike) {
			spikes.push({ atMs: performance.now(), tookMs });
		}
		return tookMs;
	},
});
await using browser = await launchChromium();
const page = await openPage(browser, stream);
await page.evaluate(() => globalThis.join());
await pause(SETTLE_MS);

const startMs = performance.now();
const rssMb: number[] = [];
const sampling = setInterval(() => rssMb.push(process.memoryUsage.rss() / 1e6), SAMPLE_MS);
await pause(Number(minutes) * 60_000);
clearInterval(sampling);
const endMs = performance.now();
const { shown, gapsMs } = await viewOf(page, stream, startMs, endMs);

const freezes = gapsMs.flatMap((gapMs, index) => (gapMs > FREEZE_MS ? [{ gapMs, atMs: (shown[index]?.atMs ?? 0) - performance.timeOrigin }] : []));
const outside = freezes.filter(({ atMs, gapMs }) => !spikes.some((spike) => spike.atMs < atMs + gapMs && atMs < spike.atMs + spike.tookMs + FELT_AFTER_MS));
const longestMs = gapsMs.reduce((most, gapMs) => Math.max(most, gapMs), 0);

const sent = [...stream.sent].filter(([, { atMs }]) => atMs >= startMs);
const [firstRtp, first] = sent[0] ?? [0, { atMs: 0 }];
const offsets = new Map<number, number[]>();
for (const [rtp, { atMs }] of sent) {
	const window = Math.floor((atMs - first.atMs) / CLOCK_WINDOW_MS);
	const values = offsets.get(window) ?? [];
	values.push(((rtp - firstRtp) >>> 0) / 90 - (atMs - first.atMs));
	offsets.set(window, values);
}
const medians = [...offsets.values()].map((values) => percentile(values, 0.5));
const driftMs = medians.map((value) => value - (medians[0] ?? 0));
const half = Math.floor(rssMb.length / 2);
const [before, after] = [mean(rssMb.slice(0, half)), mean(rssMb.slice(half))];
const duringMs = spikes.filter(({ atMs }) => atMs >= startMs);

printTable(['uneven generation', 'goal', `measured, ${minutes} min, seed ${seed}`, 'goal met'], [
	['freezes outside a spike', 'none', `${outside.length} of ${freezes.length} over ${FREEZE_MS} ms; ${duringMs.length} spikes, ${shown.length} pictures`, met(outside.length === 0)],
	['longest freeze', `<= ${SPIKE_MS} ms`, `${longestMs.toFixed(0)} ms`, met(longestMs <= SPIKE_MS)],
	['RTP clock against the wall clock', `within ${MOST_DRIFT_MS} ms`, `${Math.min(...driftMs).toFixed(1)} to ${Math.max(...driftMs).toFixed(1)} ms, medians of ${CLOCK_WINDOW_MS / 1000} s`, met(driftMs.every((value) => Math.abs(value) <= MOST_DRIFT_MS))],
	['resident memory, second half against first', 'flat', `${before.toFixed(0)} to ${after.toFixed(0)} MB, ${(Math.max(0, ...rssMb)).toFixed(0)} at most`, met(after <= MOST_GROWTH * before)],
]);
