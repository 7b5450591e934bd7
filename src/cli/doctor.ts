/** `turbocast doctor`: which hop between this machine, or a server, and the picture fails, and what to do about it. */
import type { Config } from '../config.js';
import type { Finding } from '../protocol/diagnoses.js';
import { TurbocastError } from '../protocol/errors.js';
import { parseNumber, type Arguments, type FlagTable } from './arguments.js';

export const DOCTOR_FLAGS = {
	token: { values: ['T'], says: 'a server key or client secret of the server' },
	origin: { values: ['O'], says: 'ask as a page of this origin would, such as https://app.example' },
	picture: { values: [], says: 'also start a session, which takes a place, and wait for its picture' },
	patience: { values: ['SECONDS'], says: 'how long one hop is waited for; default 6' },
	json: { values: [], says: 'one JSON line for each finding' },
	config: { values: ['FILE'], says: 'configuration to check when no URL is given; see config/default.yaml' },
} as const satisfies FlagTable;

/** ICE is up within one or two seconds where it comes up at all. */
const DEFAULT_PATIENCE_SECONDS = 6;
const SIGNS: { readonly [verdict in Finding['verdict']]: string } = { good: 'ok', doubtful: 'note', broken: 'FAILS' };

const serverUrl = (text: string): URL => {
	const url = URL.canParse(text) ? new URL(text.replace(/^ws/u, 'http')) : undefined;
	if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
		throw new TurbocastError('invalid_option', `"${text}" is not the address of a server, such as http://127.0.0.1:8080.`);
	}
	return url;
};

const lineOf = ({ hop, verdict, sentence, fix }: Finding): string =>
	`${SIGNS[verdict].padEnd(5)}  ${hop.padEnd(9)}  ${sentence}${fix === undefined ? '' : `\n${' '.repeat(18)}→ ${fix}`}`;

/** A line for each hop as it was gone; exit status 1 when any fails. `wallMs`: milliseconds since 1970. */
export const doctor = async (args: Arguments, config: Config, signal: AbortSignal, wallMs: () => number = Date.now): Promise<void> => {
	const [server, ...more] = args.words;
	if (more.length > 0) {
		throw new TurbocastError('invalid_option', 'Give the address of one server, or none for this machine: turbocast doctor http://127.0.0.1:8080.');
	}
	const patienceMs = 1000 * parseNumber('patience', args.one('patience') ?? String(DEFAULT_PATIENCE_SECONDS), { min: 1, max: 600 });
	// Imported where they are needed, so that other commands start without them.
	const findings = server === undefined
		? (await import('./doctor/machine-hops.js')).examineMachine({ config, patienceMs, signal })
		: (await import('./doctor/server-hops.js')).examineServer({ url: serverUrl(server), token: args.one('token'), origin: args.one('origin'), wantsPicture: args.has('picture'), patienceMs, wallMs });
	let broken = 0;
	for await (const finding of findings) {
		broken += finding.verdict === 'broken' ? 1 : 0;
		process.stdout.write(`${args.has('json') ? JSON.stringify(finding) : lineOf(finding)}\n`);
		signal.throwIfAborted();
	}
	if (broken > 0) {
		process.exitCode = 1;
	}
};
