/**
 * One session, many who watch it, and many connections that do nothing: does generation stay in time, and how late is the event loop?
 * Then everybody who did nothing asks for a session at once: how soon does each know?
 *
 *     npm run bench -- viewers [VIEWERS] [IDLE] [SECONDS]
 *
 * The viewers are packet sinks in a process of the lowest priority: real peers up to the DTLS handshake and with a telemetry channel, which count the
 * media packets and throw them away undecrypted, so that they send no feedback on them. What they cost is printed too: on a machine of
 * two cores they share them with the service.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { ControlClient } from '../test/server/control-client.js';
import { serve } from '../test/cli/served.js';
import type { Receiver } from '../test/transport/receiver.js';
import { processorSeconds } from './processes.js';
import { medianAndP95, percentile, printTable, printWhere } from './report.js';
import { openViewer } from './viewer.js';

const SETTLE_MS = 3000;
/** Windows of this length lie behind the event-loop delay that the service reports. */
const WINDOW_MS = 10_000;
/** Added to that of this process: the lowest there is, when it has the usual one. */
const LOWER_PRIORITY = 19;

type SinkTask = { readonly socketUrl: string; readonly token: string; readonly viewers: number; readonly idle: number };
type SinkReport = { readonly connected: number; readonly packets: number; readonly processorMs: number };
type Answers = { readonly answerMs: readonly number[]; readonly kinds: { readonly [kind: string]: number } };

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The other side, started as `viewers.bench.js --sinks`. */
const beSinks = async (): Promise<void> => {
	const [task] = (await once(process, 'message')) as [SinkTask];
	let packets = 0;
	const receivers: Receiver[] = [];
	for (let index = 0; index < task.viewers; index += 1) {
		const client = new ControlClient(task.socketUrl, ['realtime.video.v1', `token.${task.token}`]);
		await client.next('session.joined');
		const receiver = await openViewer(client);
		receiver.losePackets(() => {
			packets += 1;
			return true;
		});
		await receiver.until(() => receiver.connection.connectionState === 'connected');
		receivers.push(receiver);
	}
	const idle = await Promise.all(Array.from({ length: task.idle }, () => ControlClient.open(task.socketUrl)));
	process.on('message', (command: 'report' | 'start') => {
		if (command === 'report') {
			const { user, system } = process.cpuUsage();
			process.send?.({ connected: receivers.filter(({ connection }) => connection.connectionState === 'connected').length, packets, processorMs: (user + system) / 1000 } satisfies SinkReport);
			return;
		}
		const startMs = performance.now();
		void Promise.all(idle.map(async (client) => {
			client.send({ type: 'session.start', event_id: 'bench', prompt: 'a cat' });
			const answer = await Promise.race([client.next('session.queued'), client.next('session.ready'), client.next('error')]);
			return { ms: performance.now() - startMs, kind: answer.type === 'error' ? answer.code : answer.type };
		})).then((answers) => {
			const kinds: { [kind: string]: number } = {};
			for (const { kind } of answers) {
				kinds[kind] = (kinds[kind] ?? 0) + 1;
			}
			process.send?.({ answerMs: answers.map(({ ms }) => ms), kinds } satisfies Answers);
		});
	});
	process.send?.('connected');
};

const metricsOf = async (url: string): Promise<(name: string) => number> => {
	const text = await (await fetch(`${url}metrics`)).text();
	return (name) => Number(new RegExp(`^${name.replace(/[{}]/gu, '\\$&')} (\\S+)$`, 'mu').exec(text)?.[1] ?? 0);
};

const measure = async (viewers: number, idle: number, seconds: number): Promise<void> => {
	await using service = await serve({ TURBOCAST_LOG__LEVEL: 'info', TURBOCAST_LIMITS__MAX_VIEWERS: '1000', TURBOCAST_LIMITS__MAX_CONNECTIONS: '2000' });
	const enginePid = Number((await service.logged('Engine ready.'))['pid']);
	const encoderPid = Number((await service.logged('encoder process ready'))['pid']);
	const owner = await ControlClient.open(service.socketUrl);
	owner.send({ type: 'session.start', prompt: 'a cat jumps on the beach at night', seed: 1 });
	await owner.next('session.ready');
	owner.send({ type: 'session.share' });
	const { token } = await owner.next('session.shared');

	// By the command, because threads that exist already would keep their priority.
	const sinks = spawn('nice', ['-n', String(LOWER_PRIORITY), process.execPath, fileURLToPath(import.meta.url), '--sinks'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
	const beganMs = performance.now();
	sinks.send({ socketUrl: service.socketUrl, token, viewers, idle } satisfies SinkTask);
	await once(sinks, 'message');
	const joiningSeconds = (performance.now() - beganMs) / 1000;
	const missedWhileJoining = owner.messages.filter((message) => message.type === 'chunk.completed' && message.deadline_missed).length;
	const report = async (): Promise<SinkReport> => {
		sinks.send('report');
		return ((await once(sinks, 'message')) as [SinkReport])[0];
	};

	// The window that joining fell into is over then.
	await pause(SETTLE_MS + WINDOW_MS);
	const from = { atMs: performance.now(), message: owner.messages.length, sinks: await report(), metrics: await metricsOf(service.url), main: processorSeconds(service.pid), engine: processorSeconds(enginePid), encoder: processorSeconds(encoderPid) };
	const loopDelays: number[] = [];
	for (let elapsedMs = 0; elapsedMs < seconds * 1000; elapsedMs += WINDOW_MS) {
		await pause(WINDOW_MS);
		loopDelays.push((await metricsOf(service.url))('turbocast_event_loop_delay_p99_ms'));
	}
	const to = { atMs: performance.now(), sinks: await report(), metrics: await metricsOf(service.url), main: processorSeconds(service.pid), engine: processorSeconds(enginePid), encoder: processorSeconds(encoderPid) };
	const took = (to.atMs - from.atMs) / 1000;
	const chunks = owner.messages.slice(from.message).flatMap((message) => (message.type === 'chunk.completed' ? [message] : []));
	const grown = (name: string): number => to.metrics(name) - from.metrics(name);
	const share = (used: number): string => `${((100 * used) / took).toFixed(0)} % of a core`;
	printTable([`${viewers} viewers, ${idle} idle connections, ${took.toFixed(0)} s`, 'value'], [
		['chunks, of which late', `${chunks.length}, ${chunks.filter((chunk) => chunk.deadline_missed).length}`],
		['late while the viewers joined', `${missedWhileJoining} (${joiningSeconds.toFixed(0)} s)`],
		['lead at the end of a chunk, ms, median / least', `${percentile(chunks.map((chunk) => chunk.lead_ms), 0.5).toFixed(0)} / ${Math.min(...chunks.map((chunk) => chunk.lead_ms)).toFixed(0)}`],
		['event-loop delay p99, ms, median / worst ten seconds', `${percentile(loopDelays, 0.5).toFixed(1)} / ${Math.max(...loopDelays).toFixed(1)}`],
		['frames sent to viewers, dropped', `${grown('turbocast_frames_total{outcome="sent"}')}, ${grown('turbocast_frames_total{outcome="dropped"}')}`],
		['frames encoded', String(grown('turbocast_encode_ms_count{codec="h264"}'))],
		['sinks connected, packets a second', `${to.sinks.connected}, ${((to.sinks.packets - from.sinks.packets) / took).toFixed(0)}`],
		['main process', share(to.main - from.main)],
		['engine / encoder process', `${share(to.engine - from.engine)} / ${share(to.encoder - from.encoder)}`],
		['packet sinks, lowest priority', share((to.sinks.processorMs - from.sinks.processorMs) / 1000)],
	]);

	if (idle > 0) {
		sinks.send('start');
		const [{ answerMs, kinds }] = (await once(sinks, 'message')) as [Answers];
		printTable([`${idle} ask for a session at once`, 'value'], [
			['ms until each has an answer, median / p95', medianAndP95(answerMs)],
			['answers', Object.entries(kinds).map(([kind, count]) => `${count} ${kind}`).join(', ')],
		]);
	}
	sinks.kill();
};

if (process.argv.includes('--sinks')) {
	await beSinks();
} else {
	const [viewers = '50', idle = '200', seconds = '60'] = process.argv.slice(2);
	printWhere();
	await measure(Number(viewers), Number(idle), Number(seconds));
}
