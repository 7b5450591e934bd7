/** The SDK in Node against a real service: engine, encoder, WebRTC by werift on both sides. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { connect, type EncodedFrame, type SessionState } from '../../client/node/index.js';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { FrameMeta } from '../../src/protocol/messages.js';
import { newServerKey } from '../../src/server/keys.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { decodeChunks } from '../media/ffmpeg.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';

let machine: Machine & AsyncDisposable;
let service: Service;

const newTransport = () =>
	createWebRtcTransport({ portRange: undefined, announceAddresses: [], iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock });

before(async () => {
	machine = await startMachine();
	// However busy the machine is, no picture is made smaller.
	service = await startService(machine, { iceServers: [], bitrateFloorBps: 1, recording: { mostMs: 60_000, mostBytes: 4e6 } }, newTransport());
});
after(async () => {
	await service?.[Symbol.asyncDispose]();
	await machine?.[Symbol.asyncDispose]();
});

const takeUntil = async <T>(frames: AsyncIterable<T>, isEnough: (taken: readonly T[]) => boolean): Promise<T[]> => {
	const taken: T[] = [];
	for await (const frame of frames) {
		taken.push(frame);
		if (isEnough(taken)) {
			break;
		}
	}
	return taken;
};

const take = <T>(frames: AsyncIterable<T>, count: number): Promise<T[]> => takeUntil(frames, ({ length }) => length === count);

/** Those whose record came in time: the channel of the records may open after the first frames, and a busy machine is late with some. Most have theirs. */
const recorded = <T extends { readonly meta: FrameMeta | undefined }>(frames: readonly T[]): (T & { readonly meta: FrameMeta })[] => {
	const those = frames.filter((frame): frame is T & { readonly meta: FrameMeta } => frame.meta !== undefined);
	assert.ok(those.length > frames.length / 2, `${those.length} of ${frames.length} frames have a record`);
	return those;
};

test('encoded frames come in order with their records, from a key frame on, and decode to pictures', async () => {
	const session = connect(service.url);
	await session.start('a cat jumps', { seed: 7, steps: 1, size: '32x32' });
	const frames = await take(session.frames(), 20);
	assert.equal(frames[0]?.isKeyframe, true);
	const ids = recorded(frames).map(({ meta }) => meta.frame_id);
	// On a busy machine some are left out before they are encoded, because their viewer is behind.
	assert.ok(ids.slice(1).every((id, index) => id > (ids[index] ?? 0)), ids.join(' '));
	assert.ok(recorded(frames).every(({ kind, meta, rtpTimestamp, isKeyframe }) => kind === 'encoded' && meta.rtp_timestamp === rtpTimestamp && meta.keyframe === isKeyframe));
	const chunks = frames.map(({ codec, data, isKeyframe, rtpTimestamp }, index) => ({ codec, data, isKeyframe, rtpTimestamp, frameId: index, encodeMs: 0 }));
	assert.equal((await decodeChunks(chunks, 32, 32)).frames.length, 20);
	assert.deepEqual(await session.stop(), { kind: 'ended', reason: 'stopped' });
});

test('a change is accepted, applied, and displayed with the frame that is handed over; its time is accounted for', async () => {
	const session = connect(service.url);
	const frames: EncodedFrame[] = [];
	const first = await session.start('a cat');
	const reading = (async () => {
		for await (const frame of session.frames()) {
			frames.push(frame);
		}
	})();
	await first.displayed;
	let named: EncodedFrame | undefined;
	// A record that is lost, or later than its frame waits for it, names no frame: of a few changes one is named.
	for (let count = 0; named === undefined; count += 1) {
		assert.ok(count < 8, 'no frame has a record that names its change');
		const change = await session.setPrompt(`a dog ${count}`);
		const [applied, displayed, timeline] = await Promise.all([change.applied, change.displayed, change.timeline.catch(() => undefined)]);
		assert.equal(applied.chunkIndex, change.chunkIndex);
		assert.ok(displayed.latencyMs >= (applied.serverLatencyMs ?? Number.NaN));
		if (timeline !== undefined) {
			assert.ok(Math.abs(timeline.totalMs - displayed.latencyMs) < 1e-6);
			assert.ok(Math.abs(Object.values(timeline.stagesMs).reduce((sum, ms) => sum + ms, 0) - timeline.totalMs) < 1e-6);
			named = frames.find(({ meta }) => meta?.applied_event_ids.includes(change.eventId));
			assert.equal(named?.rtpTimestamp ?? displayed.rtpTimestamp, displayed.rtpTimestamp);
		}
	}
	const { clock } = session;
	// One process, one clock, `performance.now`: what the SDK measured is known to be wrong by no more than it says.
	assert.ok(clock !== undefined && Math.abs(clock.offsetMs) <= clock.uncertaintyMs + 1, JSON.stringify(clock));
	await session.stop();
	await reading;
});

test('decoded frames have their size and as many bytes; several readers each get all of them', async () => {
	const session = connect(service.url);
	await session.start('a cat', { size: '32x32' });
	const [pictures, units] = await Promise.all([takeUntil(session.frames({ decode: true }), (taken) => taken.length >= 6 && taken.at(-1)?.meta !== undefined), take(session.frames(), 6)]);
	for (const { width, height, pixels } of pictures) {
		assert.deepEqual([width, height, pixels.length], [32, 32, (32 * 32 * 3) / 2]);
	}
	assert.equal(pictures.at(-1)?.meta?.rtp_timestamp, pictures.at(-1)?.rtpTimestamp);
	const ids = new Set(units.map((unit) => unit.rtpTimestamp));
	assert.ok(pictures.some((picture) => ids.has(picture.rtpTimestamp)), 'the same frames went to both');
	const luma = pictures.at(-1)?.pixels.subarray(0, 32 * 32) ?? new Uint8Array(0);
	assert.ok(new Set(luma).size > 4, 'a picture, not one grey');
	await session.stop();
});

test('a signal ends a request, the reading of frames, and a session', async () => {
	const session = connect(service.url);
	await session.start('a cat');
	const reason = new Error('changed my mind');
	await assert.rejects(session.setPrompt('a dog', { signal: AbortSignal.abort(reason) }), reason);
	const reading = new AbortController();
	const frames: EncodedFrame[] = [];
	for await (const frame of session.frames({ signal: reading.signal })) {
		frames.push(frame);
		reading.abort();
	}
	assert.equal(frames.length, 1);
	await session.stop();

	const life = new AbortController();
	const other = connect(service.url, { signal: life.signal });
	await other.created;
	life.abort();
	assert.equal((await other.ended).kind, 'ended');
	await assert.rejects(other.setPrompt('a dog'), { code: 'invalid_state' });
});

test('a server that is not there: the default policy fails at once, one of the application is asked each time', async () => {
	const failed = await connect('ws://127.0.0.1:1').ended;
	assert.ok(failed.kind === 'failed' && failed.error.code === 'transport_failed');
	const asked: number[] = [];
	const session = connect('ws://127.0.0.1:1', {
		reconnect: ({ attempt, wasConnected }) => {
			asked.push(attempt);
			return wasConnected || attempt === 3 ? undefined : 1;
		},
	});
	const states: SessionState['kind'][] = [];
	for await (const event of session.events()) {
		if (event.type === 'state.changed') {
			states.push(event.state.kind);
		}
	}
	assert.deepEqual(asked, [0, 1, 2, 3]);
	assert.deepEqual(states, ['reconnecting', 'reconnecting', 'reconnecting', 'failed']);
});

test('a refused token is asked for once more, and only once; a fixed one never again', async () => {
	const key = newServerKey();
	await using own = await startService(machine, { iceServers: [] }, newTransport(), { keys: [key] });
	const given: string[] = [];
	const once = connect(own.url, {
		token: () => {
			given.push(given.length === 0 ? 'sk_wrong' : key);
			return given.at(-1) ?? '';
		},
	});
	await once.created;
	assert.deepEqual(given, ['sk_wrong', key]);
	await once.stop();
	let asked = 0;
	const never = await connect(own.url, { token: () => `sk_wrong${++asked}`, reconnect: () => 1 }).ended;
	assert.ok(never.kind === 'failed' && never.error.code === 'unauthorized');
	assert.equal(asked, 2);
	const fixed = await connect(own.url, { token: 'sk_wrong', reconnect: () => 1 }).ended;
	assert.ok(fixed.kind === 'failed' && fixed.error.code === 'unauthorized');
});

test('over the control socket alone: the same frames, in order with their records, and changes that are displayed', async () => {
	const session = connect(service.url, { transport: 'websocket' });
	const ways: unknown[] = [];
	const listening = (async () => {
		for await (const event of session.events()) {
			if (event.type === 'transport.changed') {
				ways.push(event.transport);
			}
		}
	})();
	const first = await session.start('a cat jumps', { seed: 7, steps: 1, size: '32x32' });
	const frames = await take(session.frames(), 20);
	assert.ok((await first.displayed).latencyMs > 0);
	assert.equal(frames[0]?.isKeyframe, true);
	const ids = recorded(frames).map(({ meta }) => meta.frame_id);
	// On a machine that is too busy to acknowledge in time, frames are left out, and the others can still be decoded.
	assert.ok(ids.slice(1).every((id, index) => id > (ids[index] ?? Number.NaN)), ids.join(', '));
	assert.ok(recorded(frames).every(({ meta, rtpTimestamp }) => meta.rtp_timestamp === rtpTimestamp));
	const chunks = frames.map(({ codec, data, isKeyframe, rtpTimestamp }, index) => ({ codec, data, isKeyframe, rtpTimestamp, frameId: index, encodeMs: 0 }));
	assert.equal((await decodeChunks(chunks, 32, 32)).frames.length, 20);
	const file = await session.recording({ lastMs: 1000 });
	assert.equal(file.type, 'video/mp4');
	assert.equal(Buffer.from(await file.slice(4, 8).arrayBuffer()).toString('latin1'), 'ftyp');
	await assert.rejects(session.recording({ fromMs: 1e7 }), { code: 'invalid_state' });
	await session.stop();
	await listening;
	assert.deepEqual(ways, ['websocket']);
});
