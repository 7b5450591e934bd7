/** A live session, recorded by the server, made again by the command. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { repositoryRoot } from '../repository.js';
import { startMachine, startService, type Machine } from '../server/service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
	symlinkSync(machine.model.path, join(models, machine.model.spec.name));
});
after(() => machine[Symbol.asyncDispose]());

const folder = mkdtempSync(join(tmpdir(), 'turbocast-replay-'));
const models = mkdtempSync(join(tmpdir(), 'turbocast-replay-models-'));
after(() => [folder, models].forEach((path) => rmSync(path, { recursive: true, force: true })));

const replay = (...args: string[]): Promise<{ status: number | null; output: string }> => new Promise((resolve) => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'replay', ...args], {
		stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, TURBOCAST_ENGINE__MODELS_DIR: models },
	});
	let output = '';
	child.stdout.on('data', (data: Buffer) => (output += data.toString()));
	child.stderr.on('data', (data: Buffer) => (output += data.toString()));
	child.on('close', (status) => resolve({ status, output }));
});

test('a session that was steered, cut, reset and lost its engine is made again bit for bit; a record that was changed is found', async () => {
	{
		await using service = await startService(machine, { sessionsFolder: folder });
		const { client } = await service.connectViewer();
		client.send({ type: 'session.start', prompt: 'a cat jumps', seed: 5, parameters: { steps: 1 } });
		await client.next('chunk.completed');
		client.send({ type: 'session.update', prompts: [{ text: 'a cat', weight: 1 }, { text: 'the dog flies', weight: 2 }], transition: { mode: 'blend', chunks: 2 }, parameters: { steps: 2 } });
		await client.next('chunk.completed', (chunk) => chunk.chunk_index === 3);
		const { state } = machine.engine;
		assert.ok(state.kind === 'ready');
		process.kill(state.pid, 'SIGKILL');
		await client.next('generation.started', (message) => message.history === 'restored');
		client.send({ type: 'input.action', axes: { steer_x: 0.25 } });
		client.send({ type: 'session.reset', seed: 9 });
		const { chunk_index: reset } = await client.next('generation.started');
		await client.next('chunk.completed', (chunk) => chunk.chunk_index === reset + 1);
		client.send({ type: 'session.stop' });
		await client.closed;
	}
	const [name = ''] = readdirSync(folder);
	const path = join(folder, name);
	const text = readFileSync(path, 'utf8');
	const chunks = text.trim().split('\n').length - 1;
	assert.ok(chunks >= 6);
	const same = await replay(path);
	assert.equal(same.status, 0, same.output);
	assert.match(same.output, new RegExp(`^${chunks} chunks, ${chunks * 8} frames: the same`, 'u'));

	const changed = join(folder, 'changed.jsonl');
	writeFileSync(changed, text.replace('"seed":9', '"seed":10'));
	const other = await replay(changed);
	assert.equal(other.status, 1);
	assert.match(other.output, /is not what it was in the session.*\[generation_invalid\]/u);
	writeFileSync(changed, 'nonsense\n');
	assert.match((await replay(changed)).output, /Line 1 is not one of a session's record.*\[invalid_request\]/u);
	assert.match((await replay(join(folder, 'none.jsonl'))).output, /cannot be read \(ENOENT\).*\[invalid_option\]/u);
});
