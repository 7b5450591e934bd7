/** `turbocast conformance` as people run it, against a server whose timeouts are short enough to be waited for. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { serve, type Served } from '../cli/served.js';
import { repositoryRoot } from '../repository.js';
import { mangle, type Message } from './mangling-proxy.js';

const KEY = 'sk_conformance0conformance0conformance';

let served: Served;
before(async () => {
	served = await serve({
		TURBOCAST_AUTH__KEYS: `[${KEY}]`, TURBOCAST_LIMITS__START_TIMEOUT_MS: '3000', TURBOCAST_LIMITS__IDLE_TIMEOUT_MS: '3000', TURBOCAST_LOG__LEVEL: 'warn',
	});
});
after(() => served[Symbol.asyncDispose]());

const command = async (...args: string[]): Promise<{ readonly status: unknown; readonly lines: string[] }> => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'conformance', ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
	let output = '';
	child.stdout.on('data', (data: Buffer) => (output += data.toString()));
	const [status] = await once(child, 'exit') as [unknown];
	return { status, lines: output.split('\n').filter((line) => line !== '') };
};

test('timeouts that are short enough are waited for', async () => {
	const { status, lines } = await command(served.url, '--token', KEY, '--only', '_timeout', '--json');
	assert.deepEqual([status, lines.map((line) => (JSON.parse(line) as Message)['verdict'])], [0, ['pass', 'pass']]);
});

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
