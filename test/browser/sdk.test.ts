/** The client SDK in a real browser, as an application uses it: only what `client/index.ts` exports. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { newServerKey } from '../../src/server/keys.js';
import { whyNoBrowser } from './chromium.js';
import { openStage, PATIENCE_MS, type Stage } from './stage.js';

const skip = whyNoBrowser();
let stage: Stage;
before(async () => {
	if (skip === false) {
		stage = await openStage();
	}
});
after(() => stage?.[Symbol.asyncDispose]());

test('connect, start, change, act, stop: every promise comes true, in its order', { skip }, async () => {
	await using page = await stage.openPage();
	const result = await page.evaluate(async () => {
		const session = sdk.connect(undefined, { video });
		const states: string[] = [];
		const frames: number[] = [];
		const metas: number[] = [];
		const reading = (async () => {
			for await (const event of session.events()) {
				if (event.type === 'state.changed') {
					states.push(event.state.kind);
				} else if (event.type === 'frame.displayed') {
					frames.push(event.rtp_timestamp);
				} else if (event.type === 'frame.meta') {
					metas.push(event.rtp_timestamp);
				}
			}
		})();
		const model = await session.ready;
		const first = await session.start('a cat jumps gnarly', { seed: 7, steps: 1, size: '32x32' });
		const shown = await first.displayed;
		const changes = [await session.setPrompt('a dog'), await session.setSteps(2), await session.act({ steer_x: 1 })];
		const applied = await Promise.all(changes.map((change) => change.applied));
		const displayed = await Promise.all(changes.map((change) => change.displayed));
		while (frames.length < 16) {
			await new Promise((resolve) => setTimeout(resolve, 50));
		}
		const stats = await session.stats();
		const last = await session.stop();
		await reading;
		return {
			states, model, unknown: first.unknownWords, chunk: first.chunkIndex, shown, size: [video.videoWidth, video.videoHeight],
			announced: changes.map((change) => change.chunkIndex), heard: applied.map((each) => each.chunkIndex), latencies: displayed.map((each) => each.latencyMs),
			last: last.kind, state: session.state.kind, hasStats: (stats?.size ?? 0) > 0,
			// Their channel may open a moment after the video.
			early: frames.findIndex((rtp) => metas.includes(rtp)), unmatched: frames.filter((rtp) => !metas.includes(rtp)).length, frames: frames.length,
		};
	});
	assert.equal(result.model.id, 'small');
	assert.deepEqual([result.unknown, result.chunk], [['gnarly'], 0]);
	assert.ok(result.shown.latencyMs > 0);
	assert.deepEqual(result.size, [32, 32]);
	assert.deepEqual(result.heard, result.announced);
	assert.ok(result.latencies.every((latency) => latency > 0));
	assert.deepEqual(result.states.filter((kind, index) => kind !== result.states[index - 1]), ['ready', 'starting', 'generating', 'ended']);
	assert.deepEqual([result.last, result.state, result.hasStats], ['ended', 'ended', true]);
	// Records may be lost or late on their channel, which never repeats one; here nothing is lost but perhaps the last.
	assert.ok(result.early >= 0 && result.early <= 8 && result.unmatched - result.early <= 1, `${result.unmatched} of ${result.frames} frames without a record, the first ${result.early} of them`);
});

test('what is refused rejects with its code, and the session goes on', { skip }, async () => {
	await using page = await stage.openPage();
	const codes = await page.evaluate(async () => {
		const session = sdk.connect(undefined, { video });
		const codeOf = (promise: Promise<unknown>): Promise<string> =>
			promise.then(() => 'accepted', (error: unknown) => (error instanceof sdk.TurbocastError ? error.code : 'not ours'));
		await session.created;
		const result = [
			await codeOf(session.setPrompt('too early')), await codeOf(session.start('')), await codeOf(session.start('a cat', { model: 'other' })),
			await codeOf(session.start('a cat')), await codeOf(session.start('a cat')), await codeOf(session.act({ fly: 1 })), await codeOf(session.setPrompt('a dog')),
			session.state.kind,
		];
		await session.stop();
		result.push(await codeOf(session.setPrompt('too late')));
		return result;
	});
	assert.deepEqual(codes.slice(0, 7), ['invalid_state', 'invalid_prompt', 'model_not_found', 'accepted', 'invalid_state', 'invalid_request', 'accepted']);
	assert.ok(['starting', 'generating'].includes(codes[7] ?? ''), codes[7]);
	assert.equal(codes[8], 'invalid_state');
});

test('a server that is not there fails the session with a code and a sentence; nothing is thrown', { skip }, async () => {
	await using page = await stage.openPage();
	const result = await page.evaluate(async () => {
		const session = sdk.connect('ws://127.0.0.1:1');
		const rejected = await session.start('a cat').then(() => 'accepted', (error: Error) => error.message);
		const last = await session.ended;
		return { rejected, code: last.kind === 'failed' ? last.error.code : last.kind, retryable: last.kind === 'failed' && last.error.entry.retryable };
	});
	assert.match(result.rejected, /cannot be reached/u);
	assert.deepEqual([result.code, result.retryable], ['transport_failed', true]);
});

test('closing, twice, and aborting end the session at once and free its place', { skip }, async () => {
	await using page = await stage.openPage();
	const kinds = await page.evaluate(async () => {
		const first = sdk.connect(undefined, { video });
		await first.start('a cat');
		first.close();
		first.close();
		const controller = new AbortController();
		const second = sdk.connect(undefined, { signal: controller.signal });
		await second.created;
		controller.abort();
		const third = sdk.connect(undefined, { signal: AbortSignal.abort() });
		const late = await third.created.then(() => 'created', () => 'rejected');
		return [(await first.ended).kind, (await second.ended).kind, (await third.ended).kind, late];
	});
	assert.deepEqual(kinds, ['ended', 'ended', 'ended', 'rejected']);
	while (((await (await fetch(`${stage.service.url}readyz`)).json()) as { places_free?: number }).places_free !== 2) {
		// Asked again until the server has heard; the time limit is the assertion.
	}
});

test('without a video the stream is there for the application', { skip }, async () => {
	await using page = await stage.openPage();
	const width = await page.evaluate(async () => {
		const session = sdk.connect();
		await session.ready;
		await session.start('a cat');
		video.srcObject = session.stream ?? null;
		await video.play();
		const shown = video.videoWidth;
		await session.stop();
		return shown;
	});
	assert.equal(width, 48);
});

test('a video connection that breaks looks for another way, is made anew after ten seconds without one, and the video goes on', { skip, timeout: 240_000 }, async () => {
	await using page = await stage.openPage();
	const result = await page.evaluate(async () => {
		const connections: RTCPeerConnection[] = [];
		globalThis.RTCPeerConnection = class extends RTCPeerConnection {
			constructor(configuration?: RTCConfiguration) {
				super(configuration);
				connections.push(this);
			}
		};
		const session = sdk.connect(undefined, { video });
		await (await session.start('a cat')).displayed;
		// The browser would notice a dead network after half a minute; this is what it then says.
		const [first] = connections;
		if (first === undefined) {
			return 'no connection';
		}
		Object.defineProperty(first, 'connectionState', { value: 'failed' });
		first.dispatchEvent(new Event('connectionstatechange'));
		while (connections.length < 2) {
			await new Promise((resolve) => setTimeout(resolve, 100));
		}
		await (await session.setPrompt('a dog')).displayed;
		const { length } = connections;
		await session.stop();
		return length;
	});
	assert.equal(result, 2);
});

test('a token provider is asked for each connection; a session without a place is queued, and starts when there is one', { skip }, async () => {
	const key = newServerKey();
	await using own = await stage.startService({ maxSessions: 1, maxWaiting: 1, allowedOrigins: ['*'] }, { keys: [key] });
	const mint = async (): Promise<string> => {
		const response = await fetch(new URL('/v1/realtime/client_secrets', own.url), { method: 'POST', headers: { authorization: `Bearer ${key}` } });
		return ((await response.json()) as { value: string }).value;
	};
	await using page = await stage.openPage();
	const result = await page.evaluate(async ({ url, secrets }) => {
		const [used = ''] = secrets;
		const token = (): Promise<string> => Promise.resolve(secrets.shift() ?? '');
		const first = sdk.connect(url, { token });
		await first.start('a cat');
		const second = sdk.connect(url, { token, video });
		const events = second.events();
		const starting = second.start('a dog');
		let queued = second.state;
		for await (const event of events) {
			if (event.type === 'state.changed' && event.state.kind === 'queued') {
				queued = event.state;
				break;
			}
		}
		await first.stop();
		await (await starting).displayed;
		const codeOf = async (source: string | (() => Promise<string>)): Promise<string> => {
			const last = await sdk.connect(url, { token: source }).ended;
			return last.kind === 'failed' ? last.error.code : last.kind;
		};
		return { queued, state: second.state.kind, left: secrets.length, reused: await codeOf(used), failed: await codeOf(() => Promise.reject(new Error('the backend is down'))) };
	}, { url: own.url, secrets: [await mint(), await mint()] });
	assert.ok(result.queued.kind === 'queued' && result.queued.position === 1 && result.queued.queueSize === 1);
	assert.deepEqual([result.state, result.left, result.reused, result.failed], ['generating', 0, 'unauthorized', 'unauthorized']);
});

test('the page takes its token from behind its address, hides it there, and finds it again after a reload; without one it says what is missing', { skip }, async () => {
	const key = newServerKey();
	await using own = await stage.startService({}, { keys: [key] });
	await using page = await stage.browser.newPage();
	page.setDefaultTimeout(PATIENCE_MS);
	const said: string[] = [];
	page.on('console', (message) => said.push(message.text()));
	await page.goto(own.url);
	await page.waitForFunction(() => document.getElementById('note')?.textContent?.includes('asks for a key'));
	await page.goto(`${own.url}#token=${key}`);
	await page.waitForSelector('body[data-state="ready"]');
	assert.equal(new URL(page.url()).hash, '');
	await page.reload();
	await page.waitForSelector('body[data-state="ready"]');
	assert.equal(said.join().includes(key), false);
});
