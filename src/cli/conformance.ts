/** `turbocast conformance`: does a server, or a client, do what docs/protocol.md says? */
import { createLog } from '../base/log.js';
import { systemClock } from '../base/time.js';
import { VERDICTS, type Result, type Verdict } from '../conformance/verdict.js';
import type { Config } from '../config.js';
import { TurbocastError } from '../protocol/errors.js';
import { REALTIME_PATH } from '../protocol/limits.js';
import { parseNumber, type Arguments, type FlagTable } from './arguments.js';

export const CONFORMANCE_FLAGS = {
	client: { values: [], says: 'try a client instead: it is to connect to the address that is printed' },
	token: { values: ['T'], says: 'a server key or client secret of the server; a server key lets client secrets be tried, too' },
	only: { values: ['TEXT'], says: 'only the cases whose name or section has this text' },
	patience: { values: ['SECONDS'], says: 'how long an answer is waited for; default 20' },
	port: { values: ['N'], says: 'with --client: port to listen on; default: any free one' },
	json: { values: [], says: 'one JSON line for each case' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
} as const satisfies FlagTable;

const DEFAULT_PATIENCE_SECONDS = 20;

/** `http` stands for `ws`, and the path may be left out. */
const controlUrl = (text: string): string => {
	let url: URL;
	try {
		url = new URL(text);
	} catch (error) {
		throw new TurbocastError('invalid_option', `"${text}" is not the address of a server, such as http://127.0.0.1:8080.`, { cause: error });
	}
	if (!['http:', 'https:', 'ws:', 'wss:'].includes(url.protocol)) {
		throw new TurbocastError('invalid_option', `"${text}" is not the address of a server, such as http://127.0.0.1:8080.`);
	}
	url.protocol = url.protocol.replace('http', 'ws');
	url.pathname = url.pathname === '/' ? REALTIME_PATH : url.pathname;
	return url.href;
};

const lineOf = ({ name, section, verdict, reason, tookMs }: Result): string =>
	`${verdict.padEnd(7)}  ${section.replaceAll('`', '')}: ${name}${verdict === 'pass' ? ` (${(tookMs / 1000).toFixed(1)} s)` : ''}${reason === undefined ? '' : `\n         ${reason}`}`;

const jsonOf = ({ name, section, verdict, reason, tookMs }: Result): string => JSON.stringify({ case: name, section, verdict, ...(reason === undefined ? {} : { reason }), took_ms: tookMs });

/** A line for each case as it ends; exit status 1 when any fails. */
export const conformance = async (args: Arguments, config: Config, signal: AbortSignal): Promise<void> => {
	const [server, ...more] = args.words;
	const isClient = args.has('client');
	if ((server === undefined) !== isClient || more.length > 0) {
		throw new TurbocastError('invalid_option', 'Give the address of one server, or --client: turbocast conformance http://127.0.0.1:8080.');
	}
	const patienceMs = 1000 * parseNumber('patience', args.one('patience') ?? String(DEFAULT_PATIENCE_SECONDS), { min: 1, max: 600 });
	// Imported where they are needed, so that other commands start without them.
	const results = server === undefined
		? (await import('../conformance/client-suite.js')).runClientSuite({
			patienceMs, signal,
			transport: (await import('../transport/webrtc.js')).createWebRtcTransport({ fps: 16, log: createLog({ level: 'error', personalData: config.log.personal_data }), clock: systemClock }),
			port: parseNumber('port', args.one('port') ?? '0', { min: 0, max: 65_535, integer: true }),
			onListening: (url) => process.stderr.write(`Connect the client to ${url} and start a session with any prompt; leave it running until this ends.\n`),
		})
		: (await import('../conformance/server-suite.js')).runServerSuite({ url: controlUrl(server), token: args.one('token'), patienceMs, only: args.one('only'), signal });
	const counts: { [verdict in Verdict]: number } = { pass: 0, fail: 0, skipped: 0 };
	for await (const result of results) {
		counts[result.verdict] += 1;
		process.stdout.write(`${args.has('json') ? jsonOf(result) : lineOf(result)}\n`);
	}
	process.stderr.write(`${VERDICTS.map((verdict) => `${counts[verdict]} ${verdict}`).join(', ')}\n`);
	if (counts.pass + counts.fail + counts.skipped === 0) {
		throw new TurbocastError('invalid_option', `No case has "${args.one('only') ?? ''}" in its name or section.`);
	}
	if (counts.fail > 0) {
		process.exitCode = 1;
	}
};
