/** The suite for servers: ours passes it whole. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { runServerSuite, SERVER_CASES } from '../../src/conformance/server-suite.js';
import type { Result } from '../../src/conformance/verdict.js';
import { serve, type Served } from '../cli/served.js';
import { repositoryRoot } from '../repository.js';

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
