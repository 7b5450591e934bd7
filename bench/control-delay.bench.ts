/**
 * Does a change take longer the longer a session runs? Changes of the prompt, about one a second, each a little later in its chunk than the one before; their
 * delays in the first minute, in every one after it, and in the last.
 *
 *     npm run bench -- control-delay [MINUTES] [STEPS] [CHANGES_A_MINUTE]
 *
 * Four steps are three to four times real time on two quiet cores, and the session takes about half a core, for it is paced; on a busy machine fewer steps keep it at three times. Each minute is told of as it ends, so that a
 * run that is broken off has said what it knows.
 *
 * *Applied* is from the arrival of the change at the server to the hand-over of the first frame that carries it (`event.applied.server_latency_ms`); *received*
 * from the sending to that frame whole at a real peer on this machine. The same in an hour of counted time: test/server/pace.test.ts.
 */
import { serve } from '../test/cli/served.js';
import { ControlClient } from '../test/server/control-client.js';
import { processorSecondsOf, residentByProcess } from './processes.js';
import { percentile, printTable, printWhere } from './report.js';
import { openViewer } from './viewer.js';

const [minutes = '60', steps, changesAMinute = '60'] = process.argv.slice(2);
const MINUTE_MS = 60_000;
/** In a minute, changes come at as many different moments of a chunk of half a second. */
const EVERY_MS = (MINUTE_MS + 500) / Number(changesAMinute);
const SETTLE_MS = 5000;
/** Between two prompts, so that all of them are known to the engine after the first two. */
const PROMPTS = ['a cat jumps on the beach at night', 'a cat jumps in the snow'];

await using service = await serve({ TURBOCAST_LOG__LEVEL: 'info', TURBOCAST_LIMITS__SESSION_MAX_MS: String((Number(minutes) + 5) * MINUTE_MS) });
const owner = await ControlClient.open(service.socketUrl);
await using receiver = await openViewer(owner);
owner.send({ type: 'session.start', prompt: PROMPTS[0], seed: 1, ...(steps === undefined ? {} : { parameters: { steps: Number(steps) } }) });
await owner.next('session.ready');

/** When each whole picture was there, by its RTP time; those of the last seconds. */
const arrivals = new Map<number, number>();
void receiver.until(() => {
	for (const { rtpTimestamp } of receiver.units.splice(0)) {
		arrivals.set(rtpTimestamp, performance.now());
	}
	receiver.packets.splice(0);
	receiver.records.splice(0);
	return false;
});

type Delay = { readonly atMs: number; readonly appliedMs: number; readonly receivedMs: number };
const delays: Delay[] = [];
const sizes: string[] = [];
let [chunks, late, generateMs] = [0, 0, 0];
await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
const startedAtMs = performance.now();
const startedProcessorSeconds = processorSecondsOf(service.pid);
const sentAtMs = new Map<string, number>();

/** Takes the messages that have come, so that an hour of them does not pile up either. */
const read = (): void => {
	for (const message of owner.messages.splice(0)) {
		if (message.type === 'chunk.completed') {
			chunks += 1;
			late += message.deadline_missed ? 1 : 0;
			generateMs += message.t_completed_ms - message.t_started_ms;
		} else if (message.type === 'event.applied') {
			const sentMs = sentAtMs.get(message.event_id ?? '');
			const arrivedMs = arrivals.get(message.rtp_timestamp);
			if (sentMs !== undefined && arrivedMs !== undefined) {
				delays.push({ atMs: sentMs - startedAtMs, appliedMs: message.server_latency_ms, receivedMs: arrivedMs - sentMs });
			}
		}
	}
	if (arrivals.size > 1000) {
		[...arrivals.keys()].slice(0, 500).forEach((key) => arrivals.delete(key));
	}
};

const inMinute = (minute: number): Delay[] => delays.filter(({ atMs }) => Math.floor(atMs / MINUTE_MS) === minute);
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
/** Of the last minute that is over. */
const tell = (minute: number): void => {
	const of = inMinute(minute);
	console.error(`minute ${minute + 1}: ${of.length} changes, applied after ${mean(of.map(({ appliedMs }) => appliedMs)).toFixed(0)} ms, received after ${mean(of.map(({ receivedMs }) => receivedMs)).toFixed(0)} ms; ${chunks} chunks so far, ${late} late`);
};
let told = 0;

for (let change = 1; change * EVERY_MS < Number(minutes) * MINUTE_MS; change += 1) {
	await new Promise((resolve) => setTimeout(resolve, Math.max(0, startedAtMs + change * EVERY_MS - performance.now())));
	const eventId = `change-${change}`;
	sentAtMs.set(eventId, performance.now());
	owner.send({ type: 'session.update', event_id: eventId, prompt: PROMPTS[change % PROMPTS.length] });
	read();
	// A change of its last moment is applied by then.
	if (performance.now() - startedAtMs > (told + 1) * MINUTE_MS + SETTLE_MS) {
		tell(told);
		told += 1;
	}
	if (change % Number(changesAMinute) === 1) {
		sizes.push([...residentByProcess(service.pid)].map(([name, mb]) => `${name} ${mb.toFixed(0)}`).join(', '));
	}
}
const share = (processorSecondsOf(service.pid) - startedProcessorSeconds) / ((performance.now() - startedAtMs) / 1000);
await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
read();

const row = (name: string, of: readonly Delay[]): string[] => [
	name, String(of.length),
	...(['appliedMs', 'receivedMs'] as const).map((key) => {
		const values = of.map((delay) => delay[key]);
		return `${mean(values).toFixed(0)} / ${percentile(values, 0.5).toFixed(0)} / ${percentile(values, 0.95).toFixed(0)}`;
	}),
];
const last = Number(minutes) - 1;
printWhere();
printTable(['minute', 'changes', 'applied, ms, mean / median / p95', 'received, the same'], [
	...Array.from({ length: Number(minutes) }, (_, minute) => row(String(minute + 1), inMinute(minute))).filter((_, minute) => minute === 0 || minute === last || minute % 10 === 9),
	row('all', delays),
]);
const change = (key: 'appliedMs' | 'receivedMs'): string => {
	const [first, end] = [inMinute(0), inMinute(last)].map((of) => mean(of.map((delay) => delay[key])));
	return `${(100 * ((end ?? Number.NaN) / (first ?? Number.NaN) - 1)).toFixed(1)} %`;
};
printTable(['what', 'value'], [
	['change of the mean, last minute against the first, applied / received', `${change('appliedMs')} / ${change('receivedMs')}`],
	['chunks, of which late', `${chunks}, ${late}`],
	['processor time of all processes, share of a core', share.toFixed(2)],
	['generation, times real time', (500 / (generateMs / chunks)).toFixed(2)],
	['resident memory after the first second, MB', sizes[0] ?? '-'],
	['in the last minute', sizes.at(-1) ?? '-'],
]);
