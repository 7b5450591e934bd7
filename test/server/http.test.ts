import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { EngineHost } from '../../src/engine/engine-host.js';
import type { Engine, EngineState } from '../../src/engine/engine.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { newServerKey } from '../../src/server/keys.js';
import { repositoryRoot } from '../repository.js';
import { startMachine, startService, type Machine, type Service } from './service.js';

let machine: Machine & AsyncDisposable;
let service: Service;
before(async () => {
	machine = await startMachine();
	service = await startService(machine, { maxSessions: 1 });
});
after(async () => {
	await service[Symbol.asyncDispose]();
	await machine[Symbol.asyncDispose]();
});

const get = (path: string, init?: RequestInit): Promise<Response> => fetch(new URL(path, service.url), init);
const errorOf = async (response: Response): Promise<{ type: string; code: string; message: string; param: string | null }> =>
	((await response.json()) as { error: { type: string; code: string; message: string; param: string | null } }).error;

/** Sends a request line as it stands, where `fetch` would tidy it up. Gives status and body. */
const rawGet = async (path: string): Promise<{ status: number; body: string }> => {
	const socket = connectTcp(service.server.address.port, '127.0.0.1');
	socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
	let text = '';
	socket.on('data', (data: Buffer) => {
		text += data.toString('latin1');
	});
	await once(socket, 'close');
	return { status: Number(/^HTTP\/1.1 (\d+)/u.exec(text)?.[1]), body: text.slice(text.indexOf('\r\n\r\n') + 4) };
};

test('the page and every file that it needs are served with their types', async () => {
	for (const [path, type] of [
		['/', /^text\/html/u], ['/client/demo/demo.css', /^text\/css/u], ['/client/demo/demo.js', /^text\/javascript/u], ['/client/index.js', /^text\/javascript/u],
		['/src/protocol/messages.js', /^text\/javascript/u], ['/favicon.ico', /^image\/svg\+xml/u], ['/favicon.svg', /^image\/svg\+xml/u],
	] as const) {
		const response = await get(path);
		assert.equal(response.status, 200, path);
		assert.match(response.headers.get('content-type') ?? '', type, path);
		assert.ok((await response.arrayBuffer()).byteLength > 100, path);
	}
});

test('the page may load nothing from elsewhere, and browsers are told so', async () => {
	const { headers } = await get('/');
	const policy = headers.get('content-security-policy') ?? '';
	assert.match(policy, /default-src 'none'/u);
	assert.match(policy, /script-src 'self';/u);
	assert.doesNotMatch(policy, /unsafe/u);
	assert.equal(headers.get('x-content-type-options'), 'nosniff');
	assert.equal(headers.get('referrer-policy'), 'no-referrer');
	assert.match(policy, /frame-ancestors 'none'/u);
});

test('a file that a browser has already is not sent again', async () => {
	const etag = (await get('/client/index.js')).headers.get('etag') ?? '';
	assert.match(etag, /^".{20,}"$/u);
	const again = await get('/client/index.js', { headers: { 'if-none-match': `"other", ${etag}` } });
	assert.equal(again.status, 304);
	assert.equal(await again.text(), '');
	assert.equal((await get('/client/index.js', { headers: { 'if-none-match': '"other"' } })).status, 200);
});

test('nothing outside the open folders is served, whatever the path looks like', async () => {
	for (const path of [
		'/src/server/server.js', '/test/repository.js', '/package.json', '/client/../src/server/server.js', '/client/..%2fsrc/server/server.js',
		'/client/%2e%2e/src/server/server.js', '/src/protocol/../server/server.js', '/client/demo/..%5c..%5c..%5cpackage.json', '//etc/passwd',
		'/client/demo/demo.js%00.css', '/client/%', '/client', '/client/', '/client/client.d.ts', '/client.tsbuildinfo', '/../../../../etc/passwd',
		'/src/protocol/%2e%2e%2fserver%2fserver.js', 'http://localhost/src/server/server.js',
	]) {
		const { status, body } = await rawGet(path);
		assert.equal(status, 404, path);
		assert.equal((JSON.parse(body) as { error: { code: string } }).error.code, 'not_found', path);
	}
});

test('HEAD answers as GET without a body; other methods are refused with those there are', async () => {
	for (const path of ['/', '/healthz', '/v1/models', '/nowhere']) {
		const [got, head] = [await get(path), await get(path, { method: 'HEAD' })];
		assert.equal(head.status, got.status, path);
		assert.equal(head.headers.get('content-length'), String((await got.arrayBuffer()).byteLength), path);
		assert.equal(await head.text(), '', path);
	}
	for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
		const response = await get('/v1/models', { method });
		assert.equal(response.status, 405, method);
		assert.equal(response.headers.get('allow'), 'GET, HEAD');
		assert.equal((await errorOf(response)).code, 'method_not_allowed');
	}
});

test('models are listed, shown, and not found, in the envelope that clients know', async () => {
	const list = (await (await get('/v1/models')).json()) as { object: string; data: { id: string; object: string; fps: number }[] };
	assert.equal(list.object, 'list');
	assert.deepEqual(list.data.map((model) => [model.id, model.object, model.fps]), [['small', 'model', 16]]);
	assert.deepEqual(await (await get('/v1/models/small')).json(), list.data[0]);
	const missing = await get('/v1/models/large');
	assert.equal(missing.status, 404);
	assert.deepEqual(await errorOf(missing), { type: 'not_found_error', code: 'model_not_found', message: 'There is no model "large" here; GET /v1/models lists those there are.', param: 'model' });
	assert.equal((await errorOf(await get('/v1/nothing'))).code, 'not_found');
	assert.match((await errorOf(await get('/v1/realtime/video'))).message, /speaks WebSocket/u);
});

test('metrics count sessions, frames and errors', async () => {
	await using own = await startService(machine);
	const { client, viewer } = await own.connectViewer();
	client.send({ type: 'nonsense' });
	client.send({ type: 'session.start', prompt: 'a cat' });
	await viewer.received(3);
	const text = await (await fetch(`${own.url}metrics`)).text();
	assert.match(text, /^turbocast_sessions_active 1$/mu);
	assert.match(text, /^turbocast_places_free 1$/mu);
	assert.match(text, /^turbocast_connections 1$/mu);
	assert.match(text, /^turbocast_errors_total\{code="invalid_message"\} 1$/mu);
	assert.ok(Number(/^turbocast_frames_total\{outcome="sent"\} (\d+)$/mu.exec(text)?.[1]) >= 3);
	assert.match(text, /^turbocast_change_to_frame_ms_count 1$/mu);
	assert.match(text, /^turbocast_event_loop_delay_p99_ms \d/mu);
	assert.match(text, /^turbocast_sessions\{state="generating"\} 1$/mu);
	assert.match(text, /^turbocast_sessions\{state="queued"\} 0$/mu);
	await client.next('chunk.completed');
	const later = await (await fetch(`${own.url}metrics`)).text();
	assert.match(later, /^turbocast_chunks_total\{deadline="met"\} [1-9]/mu);
	assert.match(later, /^turbocast_chunk_stage_ms_count\{stage="denoise"\} [1-9]/mu);
	assert.match(later, /^turbocast_lead_ms_count [1-9]/mu);
	assert.match(later, /^turbocast_rtp_packets_total\{kind="sent"\} [1-9]/mu);
	assert.ok(Number(/^turbocast_engine_share (\S+)$/mu.exec(later)?.[1]) > 0);
});

test('docs/operations.md has every metric with its kind and labels, and no other', async () => {
	await using own = await startService(machine);
	const { client, viewer } = await own.connectViewer();
	await client.refusalOf({ type: 'nonsense' });
	client.send({ type: 'session.start', prompt: 'a cat' });
	await viewer.received(3);
	await client.next('chunk.completed');
	client.send({ type: 'session.stop' });
	await client.closed;
	const text = await (await fetch(`${own.url}metrics`)).text();
	const kinds = Object.fromEntries([...text.matchAll(/^# TYPE (\S+) (\S+)$/gmu)].map(([, name = '', kind = '']) => [name, kind]));
	const page = readFileSync(join(repositoryRoot, 'docs/operations.md'), 'utf8');
	const rows = [...page.matchAll(/^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\|/gmu)];
	assert.deepEqual(rows.map(([, name]) => name).sort(), Object.keys(kinds).sort());
	for (const [, name = '', kind, labels = ''] of rows) {
		assert.equal(kinds[name], kind, name);
		const sample = new RegExp(`^${name}(?:_sum|_count)?(?:\\{(.*)\\})? `, 'mu').exec(text);
		const printed = [...(sample?.[1] ?? '').matchAll(/(\w+)="/gu)].map(([, label]) => label);
		// Nothing was ever lost here, so that counter has no sample.
		if (sample !== null || name !== 'turbocast_engine_losses_total') {
			assert.deepEqual(printed, labels.trim() === '' ? [] : labels.trim().split(', '), name);
		}
	}
	for (const [, name = ''] of page.matchAll(/\b(turbocast_\w+?)(?:_bucket)?[{[ `)]/gu)) {
		assert.ok(kinds[name] !== undefined, `${name} is in the page and not in the metrics`);
	}
});

test('readiness is 200 while a session would be taken: started, or put in the line', async () => {
	assert.deepEqual(await (await get('/readyz')).json(), { status: 'ready', model: 'small', places_free: 1, waiting: 0, starts_at_once: true });
	const client = await service.connect();
	client.send({ type: 'session.start', prompt: 'a cat' });
	await client.next('session.ready');
	const full = await get('/readyz');
	assert.equal(full.status, 503);
	assert.equal((await errorOf(full)).code, 'capacity_exhausted');
	assert.equal(full.headers.get('retry-after'), '10');
	assert.equal((await get('/healthz')).status, 200, 'full is not ill');
	client.send({ type: 'session.stop' });
	await client.closed;
	assert.equal((await get('/readyz')).status, 200);
	await using lined = await startService(machine, { maxSessions: 1, maxWaiting: 1 });
	const running = await lined.connect();
	running.send({ type: 'session.start', prompt: 'a cat' });
	await running.next('session.ready');
	const ready = await fetch(`${lined.url}readyz`);
	assert.deepEqual([ready.status, await ready.json()], [200, { status: 'ready', model: 'small', places_free: 0, waiting: 0, starts_at_once: false }]);
});

test('health is 503 once the engine is given up, so that the process is started again', async () => {
	let state: EngineState = { kind: 'ready', coldStartMs: 0, pid: 0 };
	const engine = { model: machine.engine.model, onState: () => () => undefined, get state() { return state; } } as unknown as Engine;
	await using given = await startService({ engine, encoders: machine.encoders });
	assert.equal((await fetch(`${given.url}healthz`)).status, 200);
	state = { kind: 'restarting', error: new TurbocastError('engine_failed', 'It died.'), attempt: 1 };
	assert.equal((await fetch(`${given.url}healthz`)).status, 200, 'a restart mends itself');
	state = { kind: 'failed', error: new TurbocastError('engine_failed', 'It died too often.') };
	const response = await fetch(`${given.url}healthz`);
	assert.equal(response.status, 503);
	assert.equal((await errorOf(response)).code, 'engine_failed');
});

test('while the engine starts, readiness and starts say not_ready, and the page is served already', async () => {
	const engine = await EngineHost.start({ modelFolder: machine.model.path, profile: 'cpu-fp32', threads: 1, log: silentLog, clock: systemClock });
	try {
		await using early = await startService({ engine, encoders: machine.encoders });
		assert.equal(engine.state.kind, 'starting');
		const response = await fetch(`${early.url}readyz`);
		assert.equal(response.status, 503);
		assert.equal((await errorOf(response)).code, 'not_ready');
		assert.equal((await fetch(early.url)).status, 200);
		const client = await early.connect();
		const error = await client.refusalOf({ type: 'session.start', event_id: 'e', prompt: 'a cat' });
		assert.equal(error.code, 'not_ready');
		assert.ok(error.retryable && error.retry_after_ms !== undefined);
		await engine.ready();
		client.send({ type: 'session.start', event_id: 'e', prompt: 'a cat' });
		await client.next('session.ready');
		assert.equal((await fetch(`${early.url}readyz`)).status, 200);
	} finally {
		await engine.close();
	}
});

test('a port that another program has is port_in_use, with the port and the way out', async () => {
	const { port } = service.server.address;
	await assert.rejects(startService(machine, { port }), (error) => {
		assert.ok(error instanceof TurbocastError);
		assert.equal(error.code, 'port_in_use');
		assert.match(error.message, new RegExp(`port ${port} of 127.0.0.1.*--port`, 'u'));
		return true;
	});
	await assert.rejects(startService(machine, { host: '192.0.2.1' }, undefined, { keys: [newServerKey()] }), (error) => error instanceof TurbocastError && error.code === 'invalid_config' && /--host/u.test(error.message));
	assert.equal((await get('/healthz')).status, 200);
});

test('a request that never ends does not keep the server from closing', async () => {
	const own = await startService(machine);
	const socket = connectTcp(own.server.address.port, '127.0.0.1');
	const isClosed = new Promise((resolve) => socket.on('error', () => undefined).on('close', resolve));
	socket.write('GET / HTTP/1.1\r\nHost: x\r\n');
	await once(socket, 'connect');
	await own.server.close();
	await isClosed;
});
