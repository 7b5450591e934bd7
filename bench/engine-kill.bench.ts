/**
 * The engine process is killed in the middle of a session that is being watched: how long does the picture stand, and does it go on where it was?
 *
 *     npm run bench -- engine-kill [TIMES]
 *
 * One session of a service that runs as people run it; the viewer is a real peer, which takes the pictures apart as they come. Kills come so far
 * apart that the engine is not given up (src/engine/restart-policy.ts), at moments that have nothing to do with chunks.
 */
import { serve } from '../test/cli/served.js';
import { ControlClient } from '../test/server/control-client.js';
import { residentByProcess } from './processes.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';
import { openViewer } from './viewer.js';

const [times = '10'] = process.argv.slice(2);
/** Four a minute: one less than what the engine is given up for. */
const BETWEEN_MS = 16_000;
const MOST_JITTER_MS = 1000;
/** Of a picture that goes on, after a kill: a second one belongs to the next. */
const WATCH_MS = 8000;
const SETTLE_MS = 5000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

await using service = await serve({ TURBOCAST_LOG__LEVEL: 'info', TURBOCAST_LIMITS__IDLE_TIMEOUT_MS: '600000' });
const readyPids = (): number[] => service.log().flatMap((line) => (line['msg'] === 'Engine ready.' ? [Number(line['pid'])] : []));

const owner = await ControlClient.open(service.socketUrl);
await using receiver = await openViewer(owner);
owner.send({ type: 'session.start', prompt: 'a cat jumps on the beach at night', seed: 1 });
await owner.next('session.ready');

/** When each whole picture was there. */
const arrivals: number[] = [];
void receiver.until(() => {
	while (arrivals.length < receiver.units.length) {
		arrivals.push(performance.now());
	}
	return false;
});
const gaps = (fromMs: number, toMs: number): number[] =>
	arrivals.flatMap((atMs, index) => {
		const beforeMs = arrivals[index - 1] ?? atMs;
		return atMs > fromMs && beforeMs < toMs ? [atMs - beforeMs] : [];
	});

await receiver.until(() => receiver.units.length > 0);
await pause(SETTLE_MS);
const usual: number[] = [];
const longest: number[] = [];
const firstFrames: number[] = [];
let restored = 0;
for (let kill = 0; kill < Number(times); kill += 1) {
	await pause(Math.random() * MOST_JITTER_MS);
	const beforeMs = performance.now();
	usual.push(...gaps(beforeMs - SETTLE_MS, beforeMs));
	const pid = readyPids().at(-1) ?? 0;
	const seen = owner.messages.length;
	process.kill(pid, 'SIGKILL');
	await owner.next('generation.started', (message) => message.history === 'restored');
	restored += 1;
	firstFrames.push(performance.now() - beforeMs);
	await pause(Math.max(0, WATCH_MS - (performance.now() - beforeMs)));
	longest.push(Math.max(...gaps(beforeMs, beforeMs + WATCH_MS)));
	const late = owner.messages.slice(seen).filter((message) => message.type === 'chunk.completed' && message.deadline_missed).length;
	console.log(`kill ${kill + 1}: longest distance of two pictures ${longest.at(-1)?.toFixed(0) ?? '-'} ms, generation begun again after ${firstFrames.at(-1)?.toFixed(0) ?? '-'} ms, ${late} chunks late`);
	await pause(BETWEEN_MS - WATCH_MS);
}
const ids = receiver.records.flatMap((text) => {
	const record = JSON.parse(text) as { readonly type?: string; readonly frame_id?: number };
	return record.type === 'frame.meta' && record.frame_id !== undefined ? [record.frame_id] : [];
});
const missing = ids.slice(1).reduce((sum, id, index) => sum + Math.abs(id - (ids[index] ?? id) - 1), 0);
printWhere();
printTable(['engine killed in mid-session', 'value'], [
	['longest distance of two pictures after a kill, ms, median / p95', medianAndP95(longest)],
	['the same without a kill, five seconds each, ms, median / p95 of all distances', `${medianAndP95(usual)}, longest ${Math.max(...usual).toFixed(0)}`],
	['kill until generation has begun again, ms, median / p95', medianAndP95(firstFrames)],
	['went on from the state before, of', `${restored}, ${times}`],
	['frames shown, left out or shown twice', `${ids.length}, ${missing}`],
	['resident memory, MB', [...residentByProcess(service.pid)].map(([name, mb]) => `${name} ${mb.toFixed(0)}`).join(', ')],
	['chunks late in all', String(owner.messages.filter((message) => message.type === 'chunk.completed' && message.deadline_missed).length)],
	['slowest kill, ms', percentile(longest, 1).toFixed(0)],
]);
