/** Fetching one file from a hub that behaves well, badly and not at all. */
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { download, type DownloadRequest } from '../../src/cli/download.js';
import { type Hub, openHub } from '../../src/cli/hub.js';
import { type ErrorCode, TurbocastError } from '../../src/protocol/errors.js';
import { type HubServer, startHubServer } from './hub-server.js';

const REPOSITORY = 'someone/weights';
const BYTES = Uint8Array.from({ length: 300_000 }, (_, index) => (index * 31 + (index >> 8)) & 0xff);

const setUp = async (options: { readonly stallMs?: number; readonly token?: string } = {}) => {
	const server = await startHubServer();
	const folder = await mkdtemp(join(tmpdir(), 'turbocast-download-'));
	server.files.set(`${REPOSITORY}/deep/large.bin`, BYTES);
	const hub = openHub({ url: server.url, stallMs: 5000, ...options });
	const waits: number[] = [];
	const fetchFile = async (path = 'deep/large.bin', changes: Partial<DownloadRequest> = {}): Promise<Uint8Array> => {
		const signal = changes.signal ?? new AbortController().signal;
		const [file] = await hub.describe(REPOSITORY, 'main', [path], signal);
		const to = join(folder, path);
		await download({
			hub, repository: REPOSITORY, revision: 'main', file: file ?? assert.fail('no file'), to, signal, say: () => undefined, onProgress: () => undefined,
			sleep: (ms) => Promise.resolve(void waits.push(ms)), ...changes,
		});
		return readFile(to);
	};
	return {
		server, hub, folder, waits, fetchFile,
		[Symbol.asyncDispose]: async () => {
			await server[Symbol.asyncDispose]();
			await rm(folder, { recursive: true, force: true });
		},
	};
};

const refusal = (attempt: Promise<unknown>, code: ErrorCode, pattern: RegExp): Promise<void> =>
	assert.rejects(attempt, (error: unknown) => {
		assert.ok(error instanceof TurbocastError, String(error));
		assert.equal(error.code, code, error.message);
		assert.match(error.message, pattern);
		return true;
	});

const bytesAsked = ({ requests }: HubServer): string[] => requests.filter((line) => line.includes('/store/')).map((line) => line.split(' ')[2] ?? 'all');

test('a large and a small file arrive whole, checked by SHA-256 and by git id', async () => {
	await using at = await setUp();
	at.server.files.set(`${REPOSITORY}/small.json`, new TextEncoder().encode('{"a": 1}'));
	at.server.files.set(`${REPOSITORY}/empty.txt`, new Uint8Array(0));
	const [large, small] = await at.hub.describe(REPOSITORY, 'main', ['deep/large.bin', 'small.json'], new AbortController().signal);
	assert.deepEqual([large?.size, large?.hash.kind, small?.size, small?.hash.kind], [BYTES.length, 'sha256', 8, 'git']);
	const progress: number[] = [];
	assert.deepEqual(new Uint8Array(await at.fetchFile('deep/large.bin', { onProgress: (done) => void progress.push(done) })), BYTES);
	assert.equal(progress.at(-1), BYTES.length);
	assert.deepEqual(new TextDecoder().decode(await at.fetchFile('small.json')), '{"a": 1}');
	assert.equal((await at.fetchFile('empty.txt')).length, 0);
	assert.deepEqual((await readdir(join(at.folder, 'deep'))), ['large.bin']);
});

test('a connection that breaks is continued where it broke, as often as it brings something', async () => {
	await using at = await setUp();
	at.server.faults.push({ kind: 'cut', afterBytes: 30_000, times: 8 });
	assert.deepEqual(new Uint8Array(await at.fetchFile()), BYTES);
	const starts = bytesAsked(at.server).map((range) => Number(/^bytes=(\d+)-/u.exec(range)?.[1] ?? 0));
	assert.equal(starts.length, 9);
	assert.ok(starts.every((start, index) => index === 0 || start > (starts[index - 1] ?? 0)), starts.join());
	assert.ok(at.waits.every((ms) => ms === 1000));
});

test('another run of the command goes on where the last one stopped', async () => {
	await using at = await setUp();
	at.server.faults.push({ kind: 'cut', afterBytes: 50_000, times: 1 });
	const interruption = new AbortController();
	const sleep = (): Promise<void> => {
		interruption.abort(new Error('interrupted'));
		return Promise.reject(new Error('interrupted'));
	};
	await assert.rejects(at.fetchFile('deep/large.bin', { signal: interruption.signal, sleep }), /interrupted/u);
	assert.match((await readdir(join(at.folder, 'deep'))).join(), /^large\.bin\.[0-9a-f]{12}\.part$/u);
	assert.deepEqual(new Uint8Array(await at.fetchFile()), BYTES);
	assert.deepEqual(bytesAsked(at.server), ['all', 'bytes=50000-299999']);
	await at.fetchFile();
	assert.equal(bytesAsked(at.server).length, 2, 'a file that is there is not fetched again');
	await writeFile(join(at.folder, 'deep', 'large.bin'), Buffer.from(BYTES).fill(0, 5, 6));
	assert.deepEqual(new Uint8Array(await at.fetchFile()), BYTES);
});

test('a server without ranges costs the bytes once more and nothing else', async () => {
	await using at = await setUp();
	at.server.faults.push({ kind: 'no ranges' }, { kind: 'cut', afterBytes: 100_000, times: 1 });
	assert.deepEqual(new Uint8Array(await at.fetchFile()), BYTES);
});

test('another version of the file is not continued with this one\'s bytes', async () => {
	await using at = await setUp();
	at.server.faults.push({ kind: 'cut', afterBytes: 50_000, times: 1 });
	await assert.rejects(at.fetchFile('deep/large.bin', { sleep: () => Promise.reject(new Error('stop')) }), /stop/u);
	const newer = BYTES.map((byte) => byte ^ 0xff);
	at.server.files.set(`${REPOSITORY}/deep/large.bin`, newer);
	assert.deepEqual(new Uint8Array(await at.fetchFile()), newer);
});

test('contents with another hash are weights_corrupt, and nothing of them stays', async () => {
	await using at = await setUp();
	at.server.faults.push({ kind: 'other bytes' });
	await refusal(at.fetchFile(), 'weights_corrupt', /SHA-256 that the hub names/u);
	assert.deepEqual(await readdir(join(at.folder, 'deep')), []);
});

test('a connection on which nothing comes counts as broken', { timeout: 240_000 }, async () => {
	await using at = await setUp({ stallMs: 1000 });
	at.server.faults.push({ kind: 'stall', afterBytes: 40_000, times: 1 });
	assert.deepEqual(new Uint8Array(await at.fetchFile()), BYTES);
});

test('what passes by itself is tried again, with longer waits, and not for ever', async () => {
	await using at = await setUp();
	const signal = new AbortController().signal;
	const [file] = await at.hub.describe(REPOSITORY, 'main', ['deep/large.bin'], signal);
	const fetchWith = (times: number): Promise<void> => {
		at.waits.length = 0;
		at.server.faults.splice(0, Infinity, { kind: 'status', status: 503, times });
		return download({
			hub: at.hub, repository: REPOSITORY, revision: 'main', file: file ?? assert.fail('no file'), to: join(at.folder, `try-${times}`), signal, say: () => undefined,
			onProgress: () => undefined, sleep: (ms) => Promise.resolve(void at.waits.push(ms)),
		});
	};
	await fetchWith(3);
	assert.deepEqual(at.waits, [1000, 2000, 4000]);
	await refusal(fetchWith(100), 'hub_unreachable', /answered 503/u);
	assert.equal(at.waits.length, 4);
});

test('a hub that refuses, has no such file, redirects without end or talks nonsense is said at once', { timeout: 240_000 }, async () => {
	await using at = await setUp();
	const withFault = async (fault: HubServer['faults'][number], code: ErrorCode, pattern: RegExp): Promise<void> => {
		at.server.faults.splice(0, Infinity, fault);
		await refusal(at.fetchFile(), code, pattern);
		assert.deepEqual(at.waits, []);
	};
	await withFault({ kind: 'status', status: 401, times: 1 }, 'unauthorized', /HF_TOKEN/u);
	await withFault({ kind: 'status', status: 404, times: 1 }, 'not_found', /answered 404/u);
	await withFault({ kind: 'status', status: 429, times: 1 }, 'rate_limited', /too many requests/u);
	await withFault({ kind: 'endless redirect' }, 'download_failed', /from one address to the next without end/u);
	await withFault({ kind: 'no list' }, 'download_failed', /no list of the files/u);
	at.server.faults.length = 0;
	await refusal(at.fetchFile('nothing.bin'), 'not_found', /no file nothing\.bin/u);
	at.server.faults.push({ kind: 'cut', afterBytes: 1000, times: 1 }, { kind: 'wrong part' });
	await refusal(at.fetchFile(), 'download_failed', /another part/u);
});

test('a token goes to the hub', async () => {
	await using at = await setUp({ token: 'hf_abc' });
	await at.fetchFile();
	assert.ok(at.server.credentials.filter((each) => each.at === 'hub').every(({ value }) => value === 'Bearer hf_abc'));
});

test('without a network the message says so, and what can be done', async () => {
	const server = await startHubServer();
	await server[Symbol.asyncDispose]();
	const hub: Hub = openHub({ url: server.url });
	await refusal(hub.describe(REPOSITORY, 'main', ['x'], new AbortController().signal), 'hub_unreachable', /cannot be reached.*models import/u);
	assert.throws(() => openHub({ url: 'somewhere' }), (error: unknown) => error instanceof TurbocastError && error.code === 'invalid_option');
});
