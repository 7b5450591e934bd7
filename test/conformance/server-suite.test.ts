/** The suite for servers: ours passes it whole. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { runServerSuite, SERVER_CASES } from '../../src/conformance/server-suite.js';
import type { Result } from '../../src/conformance/verdict.js';
import { serve, type Served } from '../cli/served.js';
import { repositoryRoot } from '../repository.js';
import { mangle, type Message } from './mangling-proxy.js';

const KEY = 'sk_conformance0conformance0conformance';
const PATIENCE_MS = 20_000;

let served: Served;
before(async () => {
	served = await serve({ TURBOCAST_AUTH__KEYS: `[${KEY}]`, TURBOCAST_LIMITS__MAX_SESSIONS: '4', TURBOCAST_LIMITS__MAX_ENGINE_SHARE: '1', TURBOCAST_LOG__LEVEL: 'warn' });
});
after(() => served[Symbol.asyncDispose]());

const run = async (url: string, only?: string): Promise<Result[]> => {
	const results: Result[] = [];
	for await (const result of runServerSuite({ url, token: KEY, patienceMs: PATIENCE_MS, only, signal: AbortSignal.timeout(200_000) })) {
		results.push(result);
	}
	return results;
};

test('every case names a heading of docs/protocol.md, and no two have one name', () => {
	const page = readFileSync(join(repositoryRoot, 'docs', 'protocol.md'), 'utf8');
	const headings = [...page.matchAll(/^#+ (.+)$/gmu)].map(([, heading]) => heading);
	assert.deepEqual([...new Set(SERVER_CASES.map(({ section }) => section))].filter((section) => !headings.includes(section)), []);
	assert.equal(new Set(SERVER_CASES.map(({ name, section }) => `${section} ${name}`)).size, SERVER_CASES.length);
});

/** Too long to be waited for, with the limits that a server has by default; and what a machine that is busy cannot do. */
const MAY_BE_SKIPPED = /longer than this run waits|no place for a second session/u;

test('our server passes every case', async () => {
	const results = await run(served.socketUrl);
	assert.equal(results.length, SERVER_CASES.length);
	assert.deepEqual(results.filter(({ verdict, reason }) => verdict === 'fail' || (verdict === 'skipped' && !MAY_BE_SKIPPED.test(reason ?? ''))), []);
	assert.ok(results.filter(({ verdict }) => verdict === 'pass').length >= SERVER_CASES.length - 3);
});

test('timeouts that are short enough are waited for', async () => {
	await using hasty = await serve({ TURBOCAST_LIMITS__START_TIMEOUT_MS: '2000', TURBOCAST_LIMITS__IDLE_TIMEOUT_MS: '2000', TURBOCAST_LOG__LEVEL: 'warn' });
	assert.deepEqual((await run(hasty.socketUrl, '_timeout')).map(({ verdict }) => verdict), ['pass', 'pass']);
});

const command = async (...args: string[]): Promise<{ readonly status: unknown; readonly lines: string[] }> => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'conformance', ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
	let output = '';
	child.stdout.on('data', (data: Buffer) => (output += data.toString()));
	const [status] = await once(child, 'exit') as [unknown];
	return { status, lines: output.split('\n').filter((line) => line !== '') };
};

test('turbocast conformance: a line of JSON for each case, exit status 1 when one fails, 2 when misused', async () => {
	const good = await command(served.url, '--token', KEY, '--only', 'ping', '--json');
	assert.equal(good.status, 0);
	const [first] = good.lines.map((line) => JSON.parse(line) as Message);
	assert.deepEqual([first?.['section'], first?.['verdict']], ['`ping`', 'pass']);
	await using proxy = await mangle(served.socketUrl, { toClient: (message) => (message['type'] === 'pong' ? { ...message, event_id: 'another' } : message) });
	const bad = await command(proxy.url, '--token', KEY, '--only', 'pong repeats', '--patience', '1');
	assert.equal(bad.status, 1);
	assert.match(bad.lines.join('\n'), /^fail {5}ping: pong repeats/u);
	assert.equal((await command()).status, 2);
	assert.equal((await command('not an address')).status, 2);
	assert.equal((await command(served.url, '--only', 'of nothing')).status, 2);
});
