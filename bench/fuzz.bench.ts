/**
 * Bad messages by the hundred thousand against a running service: does it stand, does it answer by the book, does it keep its size?
 *
 *     npm run bench -- fuzz [MESSAGES] [SEED]
 *
 * The service is a process of its own with its model, encoder and UDP transport; 100,000 messages take three to eight minutes on two cores. Sizes are compared between the first tenth, after which
 * everything has been used once, and the end, and over the second half, with every connection closed and, in the main process, all garbage collected: what is resident beyond what is alive there is what the
 * allocators of V8 and the C library keep for the next time, and it comes to a stand where a leak would not.
 */
import { ControlClient } from '../test/server/control-client.js';
import { fuzz, newOutcome } from '../test/server/fuzz-client.js';
import { FuzzMessages } from '../test/server/fuzz-messages.js';
import { serve } from '../test/cli/served.js';
import { Receiver } from '../test/transport/receiver.js';
import { INSPECTABLE, openHeap } from './heap.js';
import { residentByProcess } from './processes.js';
import { printTable, printWhere } from './report.js';

const [count = '100000', seed = '1'] = process.argv.slice(2);
/** For sessions to end and memory to be given back. */
const SETTLE_MS = 8000;
const WARM_UP_PROMPTS = 150;
const WARM_UP_INTERVAL_MS = 200;
/** Looks at the sizes, each after as many messages. */
const LOOKS = 10;

const offerOf = async (codec: 'h264' | 'vp8'): Promise<string> => {
	await using receiver = new Receiver(codec);
	return (await receiver.connection.createOffer()).sdp;
};

const offers = [await offerOf('h264'), await offerOf('vp8')];
await using service = await serve({
	// The limits on messages would answer nearly everything with rate_limited, and hide what lies behind.
	TURBOCAST_LIMITS__MESSAGES_PER_SECOND: '10000', TURBOCAST_LIMITS__BAD_MESSAGES_PER_MINUTE: '10000', TURBOCAST_LOG__LEVEL: 'warn',
	// Sessions that lost their connection are over before their size is looked at.
	TURBOCAST_LIMITS__RESUME_GRACE_MS: '1000',
	// A heap with room is collected late, and looks like a leak; in a small one a leak ends the process.
	NODE_OPTIONS: `--max-old-space-size=80 --max-semi-space-size=4 ${INSPECTABLE}`,
});
/**
 * An ordinary session first, with more prompts than the engine remembers: a process that has done its work has the size that it keeps (keys and values, encoded
 * prompts, the arenas of the tensor library), and what is more after that is a leak.
 */
const warmUp = async (): Promise<void> => {
	const client = await ControlClient.open(service.socketUrl);
	client.send({ type: 'session.start', prompt: 'a cat jumps', seed: 1 });
	await client.next('session.ready');
	for (let prompt = 0; prompt < WARM_UP_PROMPTS; prompt += 1) {
		client.send({ type: 'session.update', event_id: `warm-${prompt}`, prompt: `a cat jumps in the snow ${prompt}` });
		await client.next('event.accepted');
		await new Promise((resolve) => setTimeout(resolve, WARM_UP_INTERVAL_MS));
	}
	client.send({ type: 'session.stop' });
	await client.closed;
};

await warmUp();
const messages = new FuzzMessages(Number(seed), offers);
const outcome = newOutcome();
const sizes: ReadonlyMap<string, number>[] = [];
using heap = await openHeap(service);
const startedAtMs = performance.now();
for (let look = 0; look < LOOKS; look += 1) {
	await fuzz(service.socketUrl, messages, { count: Math.round(Number(count) / LOOKS), connections: 8, random: Math.random }, outcome);
	await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
	// Collected first: what is resident then is alive, or was not given back by the allocator.
	const { used, external } = await heap.look();
	sizes.push(new Map([...residentByProcess(service.pid), ['main, objects alive', used], ['main, buffers alive', external]]));
	// A run takes long: said as it goes.
	console.error(`${outcome.sent} messages, ${((performance.now() - startedAtMs) / 1000).toFixed(0)} s: ${[...(sizes.at(-1) ?? [])].map(([name, mb]) => `${name} ${mb.toFixed(1)} MB`).join(', ')}`);
}
const seconds = (performance.now() - startedAtMs) / 1000;
printWhere();
console.log(`seed ${seed}: ${outcome.sent} messages in ${seconds.toFixed(0)} s, ${outcome.violations.length} violations`);
outcome.violations.forEach((violation) => console.log(violation.slice(0, 3000)));
printTable(['answer', 'times'], [...outcome.answers].sort((a, b) => b[1] - a[1]).map(([answer, times]) => [answer, String(times)]));
const names = [...(sizes.at(-1) ?? new Map<string, number>()).keys()];
const mb = (at: number, name: string): number => sizes.at(at)?.get(name) ?? Number.NaN;
const growth = (from: number, name: string): string => `${(100 * (mb(-1, name) / mb(from, name) - 1)).toFixed(1)} %`;
/** Least squares over the looks of the second half: a leak is a line that goes on rising, a plateau is none. */
const slope = (name: string): number => {
	const points = sizes.map((_, at) => ({ x: at, y: mb(at, name) })).slice(LOOKS / 2 - 1);
	const [meanX, meanY] = [points.reduce((sum, { x }) => sum + x, 0) / points.length, points.reduce((sum, { y }) => sum + y, 0) / points.length];
	return points.reduce((sum, { x, y }) => sum + (x - meanX) * (y - meanY), 0) / points.reduce((sum, { x }) => sum + (x - meanX) ** 2, 0);
};
printTable(['process', ...sizes.map((_, at) => `MB at ${at + 1}/${LOOKS}`), 'first tenth to end', 'half to end', 'MB more a tenth, from the half on'], names.map((name) =>
	[name, ...sizes.map((size) => (size.get(name) ?? Number.NaN).toFixed(1)), growth(0, name), growth(LOOKS / 2 - 1, name), slope(name).toFixed(2)]));
const log = service.log().filter((line) => Number(line['level']) >= 50);
console.log(`${log.length} errors in the log${log.length === 0 ? '' : `: ${JSON.stringify(log.slice(0, 5))}`}`);
