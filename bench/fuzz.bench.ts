/**
 * Bad messages by the hundred thousand against a running service: does it stand, does it answer by the book, does it keep its size?
 *
 *     npm run bench -- fuzz [MESSAGES] [SEED]
 *
 * The service is a process of its own with its model, encoder and UDP transport. Sizes are compared between the first tenth, after which
 * everything has been used once, and the end, both with every connection closed, in a heap of 80 MB.
 */
import { fuzz, newOutcome } from '../test/server/fuzz-client.js';
import { FuzzMessages } from '../test/server/fuzz-messages.js';
import { serve } from '../test/cli/served.js';
import { Receiver } from '../test/transport/receiver.js';
import { residentByProcess } from './processes.js';
import { printTable, printWhere } from './report.js';

const [count = '100000', seed = '1'] = process.argv.slice(2);
/** For sessions to end and memory to be given back. */
const SETTLE_MS = 8000;
/** Of the messages, between two looks at the sizes: at a tenth, a quarter, a half, three quarters, the end. */
const SHARES = [0.1, 0.15, 0.25, 0.25, 0.25];

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
	NODE_OPTIONS: '--max-old-space-size=80 --max-semi-space-size=4',
});
const messages = new FuzzMessages(Number(seed), offers);
const outcome = newOutcome();
const sizes: ReadonlyMap<string, number>[] = [];
const startedAtMs = performance.now();
for (const share of SHARES) {
	await fuzz(service.socketUrl, messages, { count: Math.round(Number(count) * share), connections: 8, random: Math.random }, outcome);
	await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
	sizes.push(residentByProcess(service.pid));
}
const seconds = (performance.now() - startedAtMs) / 1000;
printWhere();
console.log(`seed ${seed}: ${outcome.sent} messages in ${seconds.toFixed(0)} s, ${outcome.violations.length} violations`);
outcome.violations.forEach((violation) => console.log(violation.slice(0, 3000)));
printTable(['answer', 'times'], [...outcome.answers].sort((a, b) => b[1] - a[1]).map(([answer, times]) => [answer, String(times)]));
const names = [...(sizes.at(-1) ?? new Map<string, number>()).keys()];
const mb = (at: number, name: string): number => sizes.at(at)?.get(name) ?? Number.NaN;
printTable(['process', 'MB after a tenth', 'a quarter', 'a half', 'three quarters', 'the end', 'change'], names.map((name) =>
	[name, ...sizes.map((size) => (size.get(name) ?? Number.NaN).toFixed(0)), `${(100 * (mb(-1, name) / mb(0, name) - 1)).toFixed(1)} %`]));
const log = service.log().filter((line) => Number(line['level']) >= 50);
console.log(`${log.length} errors in the log${log.length === 0 ? '' : `: ${JSON.stringify(log.slice(0, 5))}`}`);
