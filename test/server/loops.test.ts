/** The two loops of a session against engines and encoders that fail on cue: what a real process cannot be made to do at a given frame. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EncodedChunk, RawFrame, VideoCodec } from '../../src/base/frame.js';
import type { ChunkRun, Engine, EngineStream, StreamOptions } from '../../src/engine/engine.js';
import type { ChunkInputs, ChunkTimings } from '../../src/engine/protocol.js';
import type { VideoEncoder } from '../../src/media/encoder.js';
import { parseModelSpec } from '../../src/model/spec.js';
import { TurbocastError, type ErrorCode } from '../../src/protocol/errors.js';
import { ChangeLog } from '../../src/server/change-log.js';
import { FrameLine } from '../../src/server/frame-line.js';
import { runGeneration, type ChunkReport } from '../../src/server/generation-loop.js';
import { codecOf, Encodes, type EncodeName } from '../../src/server/encodes.js';
import { KeyframeGate } from '../../src/server/keyframe-gate.js';
import { runPlayout } from '../../src/server/playout-loop.js';
import { SMALL_SPEC } from '../model/random-model.js';
import { MemoryViewer } from './memory-transport.js';
import { SteppedClock } from './stepped-clock.js';

const FILE = { file: 'x', sha256: '0'.repeat(64), bytes: 0 };
const model = parseModelSpec({ ...SMALL_SPEC, files: { text: FILE, dit: FILE, vae: FILE, tokenizer: FILE } });
const TIMINGS: ChunkTimings = { queueMs: 0, textMs: 0, recacheMs: 0, denoiseMs: 100, cleanMs: 0, decodeMs: 0 };

/** What becomes of a chunk: an error after so many frames, or nothing wrong. */
type Fate = { readonly afterFrames: number; readonly code: ErrorCode } | undefined;

/** Streams of black frames that meet their fate by chunk index. A frame takes 20 ms of the stepped clock. */
class FatedEngine {
	readonly opened: StreamOptions[] = [];
	readonly generated: { readonly chunkIndex: number; readonly inputs: ChunkInputs }[] = [];
	readonly #fates: Map<number, Fate>;
	readonly #clock: SteppedClock;

	constructor(clock: SteppedClock, fates: Map<number, Fate>) {
		this.#clock = clock;
		this.#fates = fates;
	}

	readonly ready = (): Promise<void> => Promise.resolve();

	openStream(options: StreamOptions): Promise<EngineStream> {
		this.opened.push(options);
		let chunkIndex = options.firstChunkIndex ?? 0;
		let completed = chunkIndex;
		let frameId = options.firstFrameId ?? 0;
		return Promise.resolve({
			seed: options.seed, nextChunkIndex: chunkIndex,
			get snapshot() {
				return options.keepsSnapshot === true ? { nextChunkIndex: completed, chunks: [], memory: [] } : undefined;
			},
			close: () => Promise.resolve(),
			generate: (inputs, signal): ChunkRun => {
				const index = chunkIndex++;
				this.generated.push({ chunkIndex: index, inputs });
				// Met once: what is made again succeeds.
				const fate = this.#fates.get(index);
				this.#fates.delete(index);
				const clock = this.#clock;
				const frames = async function* (): AsyncGenerator<RawFrame> {
					for (let indexInChunk = 0; indexInChunk < 8; indexInChunk++) {
						if (fate?.afterFrames === indexInChunk) {
							throw new TurbocastError(fate.code, 'fated');
						}
						await clock.sleep(20, signal);
						yield { frameId: frameId++, chunkIndex: index, indexInChunk, width: 32, height: 32, data: new Uint8Array(1536), generatedAtMs: clock.nowMs() };
					}
					completed = index + 1;
				};
				return { chunkIndex: index, frames: frames(), timings: Promise.resolve(TIMINGS) };
			},
		});
	}
}

const setUp = async (fates: [number, Fate][] = [], keepsSnapshot = false) => {
	const clock = new SteppedClock();
	const engine = new FatedEngine(clock, new Map(fates));
	const line = new FrameLine({ model, maxLeadMs: 1000, firstRtpTimestamp: 0xffff_f000, clock });
	const changes = new ChangeLog({ prompts: [{ text: 'a cat', weight: 1 }], steps: 2, controls: {}, seed: 1 });
	changes.add({ eventId: 'start', receivedAtMs: 0 }, {});
	const abort = new AbortController();
	const started: [chunkIndex: number, firstFrameId: number, history: string][] = [];
	const frameIds: number[] = [];
	const reports: ChunkReport[] = [];
	const losses: string[] = [];
	const stream = { seed: 1, width: 32, height: 32, keepsSnapshot };
	const generation = runGeneration({
		engine: engine as unknown as Engine, line, changes, clock, stream, wantsHash: false,
		onStarted: ({ chunkIndex, firstFrameId, history }) => started.push([chunkIndex, firstFrameId, history]), onFrame: ({ frameId }) => frameIds.push(frameId), onChunk: (report) => reports.push(report), onLoss: (error) => losses.push(error.code),
	}, await engine.openStream(stream), abort.signal);
	generation.catch(() => undefined);
	return { clock, engine, line, changes, abort, started, frameIds, reports, losses, generation };
};

const playInto = (viewers: MemoryViewer | readonly MemoryViewer[], parts: Awaited<ReturnType<typeof setUp>>, encode: VideoEncoder['encode']) => {
	const keyframes: number[] = [];
	const losses: string[] = [];
	const applied: { ids: (string | undefined)[]; frameId: number }[] = [];
	const encodes: VideoCodec[] = [];
	const gate = new KeyframeGate();
	let dropped = 0;
	const encoderOf = (codec: VideoCodec): VideoEncoder => {
		let isAsked = false;
		return {
			codec, isRateCostly: false, setBitrate: () => undefined, close: () => Promise.resolve(),
			requestKeyframe: () => {
				isAsked = true;
				keyframes.push(parts.clock.nowMs());
			},
			encode: async (frame, rtpTimestamp) => {
				encodes.push(codec);
				const chunk = await encode(frame, rtpTimestamp).catch((error: unknown) => {
					// As the real one: who missed a frame needs a whole picture.
					isAsked = true;
					throw error;
				});
				const isKeyframe = chunk.isKeyframe || isAsked;
				isAsked = false;
				return { ...chunk, codec, isKeyframe };
			},
		};
	};
	const encoders = new Map<EncodeName, VideoEncoder>();
	const encoderFor = (name: EncodeName): VideoEncoder => {
		const encoder = encoders.get(name) ?? encoderOf(codecOf(name));
		encoders.set(name, encoder);
		return encoder;
	};
	const playout = runPlayout({
		line: parts.line, changes: parts.changes, clock: parts.clock, keyframes: gate,
		encodes: new Encodes({ floorBps: 300_000, mostBps: 1_200_000 }), encoderFor: (name) => Promise.resolve(encoderFor(name)), watching: () => [viewers].flat().filter((viewer) => viewer.state.kind !== 'closed'), isHeadless: () => false,
		onPlayed: () => undefined, onSent: () => undefined, onEncoded: () => undefined, onLost: () => { dropped += 1; }, onLoss: (error) => losses.push(error.code),
		onApplied: (list, sent) => applied.push({ ids: list.map((change) => change.eventId), frameId: sent.frame.frameId }),
	}, parts.abort.signal);
	playout.catch(() => undefined);
	return { playout, keyframes, losses, applied, encodes, gate, dropped: () => dropped };
};

const encoded = (frame: RawFrame, rtpTimestamp: number): Promise<EncodedChunk> =>
	Promise.resolve({ codec: 'h264', data: new Uint8Array(1), isKeyframe: frame.frameId === 0, frameId: frame.frameId, rtpTimestamp, encodeMs: 1 });

const connected = (name: string, codec: VideoCodec = 'h264'): MemoryViewer => {
	const viewer = new MemoryViewer(name, codec);
	viewer.become({ kind: 'connected' });
	return viewer;
};

test('many viewers: each frame is encoded once a codec and goes to all of it', async () => {
	const parts = await setUp();
	const [one, two, other] = [connected('one'), connected('two'), connected('other', 'vp8')];
	parts.line.setWatched(true);
	const { encodes, applied } = playInto([one, two, other], parts, encoded);
	await parts.clock.advanceTo(2000);
	assert.ok(one.chunks.length > 25);
	assert.deepEqual(one.chunks, two.chunks);
	assert.deepEqual(one.chunks.map((chunk) => chunk.rtpTimestamp), other.chunks.map((chunk) => chunk.rtpTimestamp));
	assert.ok(other.chunks.every((chunk) => chunk.codec === 'vp8'));
	assert.deepEqual([encodes.filter((codec) => codec === 'h264').length, encodes.filter((codec) => codec === 'vp8').length], [one.chunks.length, one.chunks.length]);
	assert.equal(applied.length, 1, 'a change is applied once, however many see it');
});

test('one encoder that fails costs its own viewers alone', async () => {
	const parts = await setUp();
	const [well, ill] = [connected('well'), connected('ill', 'vp8')];
	parts.line.setWatched(true);
	let frames = 0;
	const { losses } = playInto([well, ill], parts, (frame, rtp) => {
		frames += 1;
		// The two codecs take turns, H.264 first.
		return frames % 2 === 0 ? Promise.reject(new TurbocastError('encoder_failed', 'died')) : encoded(frame, rtp);
	});
	await parts.clock.advanceTo(2000);
	assert.ok(well.chunks.length > 25);
	assert.equal(ill.chunks.length, 0);
	assert.deepEqual(losses, ['encoder_failed']);
});

test('fifty who come at once begin with one key frame, the next; who watches already loses nothing', async () => {
	const parts = await setUp();
	const first = connected('first');
	const viewers = [first];
	parts.line.setWatched(true);
	const { keyframes, gate } = playInto(viewers, parts, encoded);
	await parts.clock.advanceTo(1000);
	for (let index = 0; index < 50; index += 1) {
		viewers.push(connected(`late ${index}`));
		gate.request('h264');
	}
	const before = first.chunks.length;
	await parts.clock.advanceTo(2000);
	assert.equal(keyframes.length, 1);
	for (const viewer of viewers.slice(1)) {
		assert.deepEqual([viewer.chunks[0]?.isKeyframe, viewer.chunks[0]?.frameId], [true, first.chunks[before]?.frameId]);
		assert.equal(viewer.chunks.length, first.chunks.length - before);
	}
	assert.deepEqual(first.chunks.map((chunk) => chunk.frameId), Array.from({ length: first.chunks.length }, (_, index) => index));
});

test('a viewer that is stuck slows nobody, and asks for ever fewer key frames', async () => {
	const parts = await setUp();
	const [well, stuck] = [connected('well'), connected('stuck')];
	stuck.isStuck = true;
	parts.line.setWatched(true);
	const { keyframes } = playInto([well, stuck], parts, encoded);
	await parts.clock.advanceTo(20_000);
	assert.ok(well.chunks.length >= 318 && well.chunks.length <= 322, `${well.chunks.length} frames in 20 seconds`);
	assert.ok(keyframes.length >= 5 && keyframes.length <= 8, `${keyframes.length} key frames for one that is stuck for 20 seconds`);
	stuck.isStuck = false;
	await parts.clock.advanceTo(25_000);
	assert.ok(stuck.chunks.length > 10);
	assert.equal(stuck.chunks[0]?.isKeyframe, true);
});

test('nobody watches: generation stops when what is queued reaches the lead', async () => {
	const parts = await setUp();
	await parts.clock.advanceTo(10_000);
	assert.deepEqual(parts.reports.map((report) => report.chunkIndex), [0, 1]);
	parts.abort.abort(new Error('enough'));
	await parts.generation;
});

test('somebody watches: frames leave at the rate of the model, and generation stays within the lead', async () => {
	const parts = await setUp();
	const viewer = new MemoryViewer('v');
	viewer.become({ kind: 'connected' });
	parts.line.setWatched(true);
	const { playout } = playInto(viewer, parts, encoded);
	await parts.clock.advanceTo(10_020);
	assert.ok(viewer.chunks.length >= 158 && viewer.chunks.length <= 162, `${viewer.chunks.length} frames in 10 seconds`);
	assert.equal(viewer.chunks[0]?.rtpTimestamp, 0xffff_f000);
	assert.equal(viewer.chunks[1]?.rtpTimestamp, (0xffff_f000 + 5625) % 2 ** 32, 'the timestamp wraps at 32 bits');
	assert.ok(parts.reports.every((report) => report.leadMs <= 1000 && !report.deadlineMissed));
	parts.abort.abort(new Error('enough'));
	await Promise.all([parts.generation, playout]);
});

test('a pause is no lateness: the frames after it keep their distance, and no chunk was late for it', async () => {
	const parts = await setUp();
	parts.line.setWatched(true);
	const takenAtMs: number[] = [];
	playInto(connected('v'), parts, (frame, rtpTimestamp) => {
		takenAtMs.push(parts.clock.nowMs());
		return encoded(frame, rtpTimestamp);
	});
	// Shorter than what a caller that is late would catch up with.
	for (const pausedAtMs of [3000, 3200]) {
		await parts.clock.advanceTo(pausedAtMs);
		parts.line.setPaused(pausedAtMs === 3000);
	}
	await parts.clock.advanceTo(6000);
	const gaps = takenAtMs.slice(1).map((atMs, index) => atMs - (takenAtMs[index] ?? atMs));
	assert.ok(gaps.length > 80 && Math.min(...gaps) > 62, `${gaps.length} frames, ${Math.min(...gaps)} ms apart at least`);
	assert.equal(gaps.filter((gap) => gap > 63).length, 1, 'the pause');
	assert.ok(parts.reports.length > 8 && parts.reports.every(({ deadlineMissed }) => !deadlineMissed));
});

test('an engine lost in mid-chunk: the chunk is made again from the copy of the state, and what was queued of it is not shown twice', async () => {
	for (const [keepsSnapshot, history] of [[true, 'restored'], [false, 'lost']] as const) {
		const parts = await setUp([[1, { afterFrames: 3, code: 'engine_failed' }]], keepsSnapshot);
		parts.line.setWatched(true);
		await parts.clock.advanceTo(2000);
		assert.deepEqual(parts.losses, ['engine_failed']);
		assert.deepEqual(parts.engine.opened[1], {
			seed: 1, width: 32, height: 32, keepsSnapshot, firstChunkIndex: 1, firstFrameId: 8,
			...(keepsSnapshot ? { restore: { nextChunkIndex: 1, chunks: [], memory: [] } } : {}),
		});
		assert.deepEqual(parts.started, [[0, 0, 'new'], [1, 8, history]]);
		assert.deepEqual(parts.engine.generated[1], parts.engine.generated[2], 'the same inputs');
		assert.deepEqual(parts.frameIds, Array.from({ length: parts.frameIds.length }, (_, index) => index));
		assert.ok(parts.frameIds.length >= 16);
	}
});

test('an engine lost before the first chunk was whole costs nothing: it is made again from the same seed', async () => {
	const parts = await setUp([[0, { afterFrames: 5, code: 'engine_failed' }]], true);
	parts.line.setWatched(true);
	await parts.clock.advanceTo(1000);
	assert.deepEqual(parts.started, [[0, 0, 'new'], [0, 0, 'restored']]);
	assert.deepEqual(parts.frameIds.slice(0, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
});

test('the changes of a chunk that was lost before its first frame are carried by the next', async () => {
	const parts = await setUp([[1, { afterFrames: 0, code: 'engine_failed' }]]);
	const viewer = new MemoryViewer('v');
	viewer.become({ kind: 'connected' });
	parts.line.setWatched(true);
	const { applied } = playInto(viewer, parts, encoded);
	await parts.clock.advanceTo(100);
	parts.changes.add({ eventId: 'edit', receivedAtMs: 0 }, { prompts: [{ text: 'a dog', weight: 1 }] });
	await parts.clock.advanceTo(3000);
	assert.deepEqual(applied, [{ ids: ['start'], frameId: 0 }, { ids: ['edit'], frameId: 8 }]);
	assert.deepEqual(parts.engine.generated.slice(0, 3).map((entry) => [entry.chunkIndex, entry.inputs.prompt]), [[0, 'a cat'], [1, 'a dog'], [1, 'a dog']]);
});

test('one chunk of numbers that are no picture is told and passed over; a second in a row ends generation', async () => {
	const once = await setUp([[1, { afterFrames: 0, code: 'generation_invalid' }], [3, { afterFrames: 0, code: 'generation_invalid' }]]);
	const viewer = new MemoryViewer('v');
	viewer.become({ kind: 'connected' });
	once.line.setWatched(true);
	playInto(viewer, once, encoded);
	await once.clock.advanceTo(4000);
	assert.deepEqual(once.losses, ['generation_invalid', 'generation_invalid']);
	assert.deepEqual(once.reports.slice(0, 3).map((report) => report.chunkIndex), [0, 2, 4]);

	const twice = await setUp([[1, { afterFrames: 0, code: 'generation_invalid' }], [2, { afterFrames: 0, code: 'generation_invalid' }]]);
	await twice.clock.advanceTo(1000);
	await assert.rejects(twice.generation, (error) => error instanceof TurbocastError && error.code === 'generation_invalid');
});

test('an engine that has given up ends generation with its error', async () => {
	const parts = await setUp([[0, { afterFrames: 2, code: 'engine_failed' }]]);
	(parts.engine as { ready: () => Promise<void> }).ready = () => Promise.reject(new TurbocastError('engine_failed', 'given up'));
	await parts.clock.advanceTo(1000);
	await assert.rejects(parts.generation, /given up/u);
});

test('an encoder that is lost costs the frames until it is back, is told once, and the changes go with the first frame after', async () => {
	const parts = await setUp();
	const viewer = new MemoryViewer('v');
	viewer.become({ kind: 'connected' });
	parts.line.setWatched(true);
	const { losses, applied, dropped } = playInto(viewer, parts, (frame, rtp) =>
		frame.frameId < 4 ? Promise.reject(new TurbocastError('encoder_failed', 'died')) : encoded(frame, rtp));
	await parts.clock.advanceTo(1000);
	assert.deepEqual(losses, ['encoder_failed']);
	assert.equal(dropped(), 4);
	assert.deepEqual(applied, [{ ids: ['start'], frameId: 4 }]);
});

test('an encoder that does not come back ends playout', async () => {
	const parts = await setUp();
	const viewer = new MemoryViewer('v');
	viewer.become({ kind: 'connected' });
	parts.line.setWatched(true);
	const { playout, losses } = playInto(viewer, parts, () => Promise.reject(new TurbocastError('encoder_failed', 'died')));
	await parts.clock.advanceTo(10_000);
	await assert.rejects(playout, (error) => error instanceof TurbocastError && error.code === 'encoder_failed');
	assert.deepEqual(losses, ['encoder_failed']);
});

test('a viewer that drops is asked a key frame for, but not with every frame', async () => {
	const parts = await setUp();
	const viewer = new MemoryViewer('v');
	parts.line.setWatched(true);
	const { keyframes, dropped } = playInto(viewer, parts, encoded);
	await parts.clock.advanceTo(2000);
	assert.ok(dropped() > 20);
	assert.ok(keyframes.length >= 2 && keyframes.length <= 3, `${keyframes.length} in 2 seconds`);
});

test('a viewer whose way is full is spared frames; one whose way carries little gets the small encode, beginning with a key frame, and the others theirs as before', async () => {
	const parts = await setUp();
	const [well, slow] = [connected('well'), connected('slow')];
	parts.line.setWatched(true);
	const { encodes, keyframes } = playInto([well, slow], parts, encoded);
	await parts.clock.advanceTo(1000);
	const before = slow.chunks.length;
	slow.bandwidthBps = 100_000;
	slow.backlogMs = 500;
	await parts.clock.advanceTo(2000);
	assert.equal(slow.chunks.length, before, 'its way is full');
	assert.ok(well.chunks.length > before + 10, 'which nobody else notices');
	slow.backlogMs = 0;
	const encodesBefore = encodes.length;
	const wellBefore = well.chunks.length;
	await parts.clock.advanceTo(3000);
	assert.equal(slow.chunks[before]?.isKeyframe, true);
	assert.equal(encodes.length - encodesBefore, well.chunks.length - wellBefore + slow.chunks.length - before, 'two encodes');
	assert.equal(keyframes.length, 1);
	assert.deepEqual(well.chunks.map(({ frameId }) => frameId), Array.from({ length: well.chunks.length }, (_, index) => index));
});
