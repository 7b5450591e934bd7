/** Keys and client secrets against a real server: who gets in, who does not, and what each may do. */
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, sign as signWith } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { ClientSecret } from '../../src/protocol/client-secrets.js';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { Auth, type AuthOptions } from '../../src/server/auth.js';
import { readKeys, writeKeys } from '../../src/server/key-file.js';
import { newServerKey, storedKeyOf } from '../../src/server/keys.js';
import { ControlClient } from './control-client.js';
import { startMachine, startService, type Machine, type Service } from './service.js';

const KEY = newServerKey();
const START = { type: 'session.start', event_id: 'e', prompt: 'a cat' };

let machine: Machine & AsyncDisposable;
const folder = mkdtempSync(join(tmpdir(), 'turbocast-keys-'));
before(async () => {
	machine = await startMachine();
});
after(async () => {
	await machine[Symbol.asyncDispose]();
	rmSync(folder, { recursive: true });
});

const startLocked = (changes: Partial<AuthOptions> = {}): Promise<Service> => startService(machine, {}, undefined, { keys: [KEY], ...changes });

const post = (service: Service, body: unknown, credential: string | null = KEY): Promise<Response> =>
	fetch(new URL('/v1/realtime/client_secrets', service.url), {
		method: 'POST', headers: credential === null ? {} : { authorization: `Bearer ${credential}` }, body: typeof body === 'string' ? body : JSON.stringify(body),
	});
const mint = async (service: Service, body: object = {}): Promise<ClientSecret> => {
	const response = await post(service, body);
	assert.equal(response.status, 200);
	return (await response.json()) as ClientSecret;
};
const codeOf = async (response: Response): Promise<string> => ((await response.json()) as { error: { code: string } }).error.code;

const withBearer = (service: Service, credential: string, headers: { [name: string]: string } = {}): ControlClient =>
	new ControlClient(service.socketUrl, undefined, { headers: { authorization: `Bearer ${credential}`, ...headers } });
const withProtocol = (service: Service, credential: string): ControlClient => new ControlClient(service.socketUrl, ['realtime.video.v1', `token.${credential}`]);

const isRefused = async (client: ControlClient, code: ErrorCode, closeCode: number): Promise<void> => {
	await once(client.socket, 'message');
	if (client.messages[0]?.type !== 'error') {
		client.socket.terminate();
	}
	assert.deepEqual((await client.closed).code, closeCode);
	assert.deepEqual(client.messages.map((message) => (message.type === 'error' ? message.code : message.type)), [code, 'session.ended']);
};
const isWelcome = async (client: ControlClient): Promise<void> => {
	await client.next('session.created');
	await client[Symbol.asyncDispose]();
};

test('a key or a secret opens the control socket by header or by sub-protocol; nothing else does', async () => {
	await using service = await startLocked();
	await isWelcome(withBearer(service, KEY));
	await isWelcome(withProtocol(service, KEY));
	await isWelcome(withBearer(service, (await mint(service)).value));
	const page = withProtocol(service, (await mint(service)).value);
	await once(page.socket, 'open');
	assert.equal(page.socket.protocol, 'realtime.video.v1', 'the credential is not repeated in the answer');
	await isWelcome(page);
	await isRefused(new ControlClient(service.socketUrl), 'unauthorized', 4401);
	await isRefused(new ControlClient(`${service.socketUrl}?token=${KEY}`), 'unauthorized', 4401);
	for (const wrong of [newServerKey(), 'sk_', 'ek_', 'ek_a.b.c', 'hello', KEY.slice(0, -1), `${KEY}x`]) {
		await isRefused(withBearer(service, wrong), 'unauthorized', 4401);
	}
});

test('health and readiness are open, the page too; models, metrics and secrets need a server key', async () => {
	await using service = await startLocked();
	for (const path of ['/', '/healthz', '/readyz', '/client/index.js']) {
		assert.equal((await fetch(new URL(path, service.url))).status, 200, path);
	}
	const { value } = await mint(service);
	for (const path of ['/metrics', '/v1/models', '/v1/models/small']) {
		const refused = await fetch(new URL(path, service.url));
		assert.equal(refused.status, 401, path);
		assert.equal(refused.headers.get('www-authenticate'), 'Bearer');
		assert.equal(await codeOf(refused), 'unauthorized');
		assert.equal((await fetch(new URL(path, service.url), { headers: { authorization: `Bearer ${KEY}` } })).status, 200, path);
		assert.equal((await fetch(new URL(path, service.url), { headers: { authorization: `Bearer ${value}` } })).status, 403, path);
	}
	assert.equal(await codeOf(await post(service, {}, null)), 'unauthorized');
	assert.equal(await codeOf(await post(service, {}, newServerKey())), 'unauthorized');
});

test('a secret makes no further secrets', async () => {
	await using service = await startLocked();
	const refused = await post(service, {}, (await mint(service)).value);
	assert.equal(refused.status, 403);
	assert.equal(await codeOf(refused), 'forbidden');
});

test('a secret opens as many connections as it was made for, and not one more', async () => {
	await using service = await startLocked();
	const single = await mint(service);
	assert.deepEqual(single.constraints, { max_sessions: 1 });
	await isWelcome(withBearer(service, single.value));
	await isRefused(withBearer(service, single.value), 'unauthorized', 4401);
	const double = await mint(service, { constraints: { max_sessions: 2 } });
	await Promise.all([isWelcome(withBearer(service, double.value)), isWelcome(withProtocol(service, double.value))]);
	await isRefused(withBearer(service, double.value), 'unauthorized', 4401);
});

test('a secret is refused from the second of its expiry on, by its own code', async () => {
	let nowMs = 1_800_000_000_000;
	await using service = await startLocked({ wallMs: () => nowMs });
	const secret = await mint(service, { expires_after: { anchor: 'created_at', seconds: 10 }, constraints: { max_sessions: 2 } });
	assert.equal(secret.expires_at, nowMs / 1000 + 10);
	nowMs += 9000;
	await isWelcome(withBearer(service, secret.value));
	nowMs += 1000;
	await isRefused(withBearer(service, secret.value), 'token_expired', 4401);
});

test('a secret for another model or another origin is forbidden, and is not used up by that', async () => {
	await using service = await startService(machine, { allowedOrigins: ['*'] }, undefined, { keys: [KEY] });
	await isRefused(withBearer(service, (await mint(service, { permissions: { models: ['large'] } })).value), 'forbidden', 4403);
	await isWelcome(withBearer(service, (await mint(service, { permissions: { models: ['large', 'small'] } })).value));
	const { value } = await mint(service, { permissions: { origins: ['https://video.example'] } });
	await isRefused(withBearer(service, value, { origin: 'https://elsewhere.example' }), 'forbidden', 4403);
	await isRefused(withBearer(service, value), 'forbidden', 4403);
	await isWelcome(withBearer(service, value, { origin: 'https://video.example' }));
});

test('a secret for viewing alone may not start or steer, one for control may', async () => {
	await using service = await startLocked();
	const viewer = withBearer(service, (await mint(service, { permissions: { actions: ['view'] } })).value);
	await viewer.next('session.created');
	for (const message of [START, { type: 'session.update', event_id: 'e', prompt: 'x' }, { type: 'input.action', event_id: 'e', axes: {} }, { type: 'session.stop', event_id: 'e' }]) {
		assert.equal((await viewer.refusalOf(message)).code, 'forbidden');
	}
	assert.equal(await viewer.isAlive(), true);
	await using driver = withBearer(service, (await mint(service, { permissions: { actions: ['control'] } })).value);
	await driver.next('session.created');
	driver.send(START);
	await driver.next('session.ready');
});

test('the longest session of a secret is announced, and ends the session', async () => {
	await using service = await startLocked();
	const client = withBearer(service, (await mint(service, { constraints: { max_session_seconds: 1 } })).value);
	assert.equal((await client.next('session.created')).limits.max_session_ms, 1000);
	client.send(START);
	assert.equal((await client.next('error')).code, 'max_duration');
	assert.equal((await client.closed).code, 4410);
});

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const decode = (part: string | undefined): { [claim: string]: unknown } => JSON.parse(Buffer.from(part ?? '', 'base64url').toString()) as { [claim: string]: unknown };

test('a token of the right signature that is no client secret is none', async () => {
	const keysFile = join(folder, 'known', 'keys.json');
	await writeKeys(keysFile, [storedKeyOf(KEY, '', new Date())]);
	await using service = await startService(machine, {}, undefined, { keysFile });
	const secret = readFileSync(`${keysFile}.signing`);
	const [header = '', payload = ''] = (await mint(service)).value.slice('ek_'.length).split('.');
	const signed = (head: object, body: object, hash = 'sha256'): string => {
		const text = `${encode({ ...decode(header), ...head })}.${encode({ ...decode(payload), ...body })}`;
		return `ek_${text}.${createHmac(hash, secret).update(text).digest('base64url')}`;
	};
	for (const [title, forged] of [
		['another type', signed({ typ: 'JWT' }, {})], ['another algorithm', signed({ alg: 'HS512' }, {}, 'sha512')], ['another issuer', signed({}, { iss: 'x' })],
		['another audience', signed({}, { aud: 'x' })], ['no expiry', signed({}, { exp: undefined })], ['no id', signed({}, { jti: undefined })],
		['no constraints', signed({}, { constraints: undefined })], ['an action that there is not', signed({}, { permissions: { actions: ['all'] } })],
	] as const) {
		await assert.doesNotReject(isRefused(withBearer(service, forged), 'unauthorized', 4401), title);
	}
	await isWelcome(withBearer(service, signed({}, {})));
});

test('a secret that was tampered with, signed by another or by another algorithm is no secret', async () => {
	await using service = await startLocked();
	await using other = await startLocked();
	const { value } = await mint(service);
	const [header = '', payload = '', signature = ''] = value.slice('ek_'.length).split('.');
	const wider = encode({ ...decode(payload), constraints: { max_sessions: 1000 } });
	const none = encode({ ...decode(header), alg: 'none' });
	const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
	const rs256 = encode({ ...decode(header), alg: 'RS256', jwk: publicKey.export({ format: 'jwk' }) });
	const hs512 = encode({ ...decode(header), alg: 'HS512' });
	const otherType = encode({ ...decode(header), typ: 'JWT' });
	for (const [title, forged] of [
		['another payload', `${header}.${wider}.${signature}`],
		['another signature', `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`],
		['no signature', `${header}.${payload}.`],
		['alg none', `${none}.${payload}.`],
		['alg none with the signature', `${none}.${payload}.${signature}`],
		['RS256 with a key of its own', `${rs256}.${payload}.${signWith('sha256', Buffer.from(`${rs256}.${payload}`), privateKey).toString('base64url')}`],
		['HS512 keyed with what is public', `${hs512}.${payload}.${createHmac('sha512', value).update(`${hs512}.${payload}`).digest('base64url')}`],
		['another type', `${otherType}.${payload}.${signature}`],
		['two parts', `${header}.${payload}`],
		['ten thousand letters', 'x'.repeat(10_000)],
	] as const) {
		await assert.doesNotReject(isRefused(withBearer(service, `ek_${forged}`), 'unauthorized', 4401), title);
	}
	await isRefused(withBearer(service, (await mint(other)).value), 'unauthorized', 4401);
	await isWelcome(withBearer(service, value));
});

test('what a secret is asked to be is checked: unknown fields, lifetimes and sizes', async () => {
	await using service = await startLocked();
	for (const [body, param] of [
		[{ expires_after: { seconds: 9 } }, 'expires_after.seconds'], [{ expires_after: { seconds: 7201 } }, 'expires_after.seconds'],
		[{ constraints: { max_sesions: 1 } }, 'constraints.max_sesions'], [{ permissions: { actions: ['publish'] } }, 'permissions.actions.0'],
		[{ permissions: { actions: [] } }, 'permissions.actions'], [{ permissions: { origins: ['video.example'] } }, 'permissions.origins.0'], [{ modles: [] }, 'modles'],
	] as const) {
		const response = await post(service, body);
		assert.equal(response.status, 400, param);
		assert.equal(((await response.json()) as { error: { param: string } }).error.param, param);
	}
	assert.equal(await codeOf(await post(service, '{')), 'invalid_message');
	assert.equal((await post(service, ' '.repeat(20_000))).status, 413);
	const { expires_at: expiresAt } = await mint(service);
	assert.ok(Math.abs(expiresAt - Date.now() / 1000 - 600) < 60);
	const got = await fetch(new URL('/v1/realtime/client_secrets', service.url));
	assert.equal(got.status, 405);
	assert.equal(got.headers.get('allow'), 'POST');
});

test('one key makes only so many secrets a minute, and hears when it may again', async () => {
	const other = newServerKey();
	await using service = await startLocked({ keys: [KEY, other], secretsPerMinute: 2 });
	await mint(service);
	await mint(service);
	const refused = await post(service, {});
	assert.equal(refused.status, 429);
	assert.ok(Number(refused.headers.get('retry-after')) >= 1);
	assert.equal((await post(service, {}, other)).status, 200);
});

test('a server without keys lets this machine in, makes no secrets, and listens nowhere else', async () => {
	await using service = await startService(machine);
	await isWelcome(withBearer(service, 'sk_whatever'));
	assert.equal((await fetch(`${service.url}metrics`)).status, 200);
	assert.equal((await post(service, {})).status, 401);
	for (const host of ['0.0.0.0', '::', '192.168.1.5', 'video.example', '']) {
		await assert.rejects(startService(machine, { host }), (error) => error instanceof TurbocastError && error.code === 'invalid_config' && /turbocast keys create/u.test(error.message), host);
	}
	await using open = await startService(machine, { host: '0.0.0.0' }, undefined, { keys: [KEY] });
	assert.equal((await fetch(`http://127.0.0.1:${open.server.address.port}/healthz`)).status, 200);
});

test('the keys file holds hashes, counts as soon as it changes, and revoking the last key locks the server', async () => {
	const keysFile = join(folder, 'live', 'keys.json');
	const stored = storedKeyOf(KEY, 'test', new Date());
	await using service = await startService(machine, {}, undefined, { keysFile });
	await isWelcome(new ControlClient(service.socketUrl));
	await writeKeys(keysFile, [stored]);
	assert.equal(readFileSync(keysFile, 'utf8').includes(KEY), false);
	assert.equal(statSync(keysFile).mode & 0o777, 0o600);
	await isRefused(new ControlClient(service.socketUrl), 'unauthorized', 4401);
	await isWelcome(withBearer(service, KEY));
	const { value } = await mint(service);
	await writeKeys(keysFile, []);
	await isRefused(withBearer(service, KEY), 'unauthorized', 4401);
	await isRefused(withBearer(service, value), 'unauthorized', 4401);
	await isRefused(new ControlClient(service.socketUrl), 'unauthorized', 4401);
});

test('secrets outlive a restart where there is a keys file; the signing secret is its owner\'s alone', async () => {
	const keysFile = join(folder, 'keys.json');
	await writeKeys(keysFile, [storedKeyOf(KEY, '', new Date())]);
	let value: string;
	{
		await using first = await startService(machine, {}, undefined, { keysFile });
		({ value } = await mint(first));
	}
	assert.equal(statSync(`${keysFile}.signing`).mode & 0o777, 0o600);
	{
		await using second = await startService(machine, {}, undefined, { keysFile });
		await isWelcome(withBearer(second, value));
	}
	const open = (): Promise<Auth> => Auth.open({ keys: [], keysFile, secretsPerMinute: 1, log: silentLog, clock: systemClock });
	chmodSync(`${keysFile}.signing`, 0o644);
	await assert.rejects(open(), /chmod 600/u);
	chmodSync(`${keysFile}.signing`, 0o600);
	writeFileSync(`${keysFile}.signing`, 'short');
	await assert.rejects(open(), /32 bytes/u);
});

test('a keys file that is damaged is said to be, with its path', async () => {
	const path = join(folder, 'damaged.json');
	writeFileSync(path, '{"version": 1, "keys": [{}]}');
	await assert.rejects(readKeys(path), (error) => error instanceof TurbocastError && error.code === 'invalid_config' && error.message.includes(path));
});
