/**
 * A started session in time that is only counted: the real line from the generation loop to the viewer, over an engine and an encoder that take as long
 * as a test says. An hour passes in seconds.
 */
import type { RawFrame } from '../../src/base/frame.js';
import { silentLog } from '../../src/base/log.js';
import { Metrics } from '../../src/base/metrics.js';
import type { ChunkRun, Engine, EngineStream } from '../../src/engine/engine.js';
import type { Encoders } from '../../src/media/encoder.js';
import { parseModelSpec } from '../../src/model/spec.js';
import type { ServerMessage, ServerMessages, ServerMessageType } from '../../src/protocol/messages.js';
import { Admission } from '../../src/server/admission.js';
import { createServerMetrics } from '../../src/server/server-metrics.js';
import type { SessionParts } from '../../src/server/session-parts.js';
import { SessionRun } from '../../src/server/session-run.js';
import { SMALL_SPEC } from '../model/random-model.js';
import { MemoryTransport, MemoryViewer } from './memory-transport.js';
import { TEST_CONFIG } from './service.js';
import { SteppedClock } from './stepped-clock.js';

const FILE = { file: 'x', sha256: '0'.repeat(64), bytes: 0 };
const model = parseModelSpec({ ...SMALL_SPEC, files: { text: FILE, dit: FILE, vae: FILE, tokenizer: FILE } });
/** A chunk is two latents of four frames, half a second. */
const LATENT_FRAMES = 4;
/** Shares of a chunk's time at which its latents are there; the rest is the clean pass. */
const LATENT_SHARES = [0.65, 0.85];
const ENCODE_MS = 6;

export type ChunkTime = (chunkIndex: number, nowMs: number) => number;

const simulatedEngine = (clock: SteppedClock, chunkTime: ChunkTime): Engine => {
	const openStream = (): Promise<EngineStream> => {
		let chunkIndex = 0;
		let frameId = 0;
		const generate = (_: unknown, signal?: AbortSignal): ChunkRun => {
			const index = chunkIndex++;
			const takesMs = chunkTime(index, clock.nowMs());
			let done: () => void = () => undefined;
			const timings = new Promise<void>((resolve) => (done = resolve)).then(() => ({ queueMs: 0, textMs: 0, recacheMs: 0, denoiseMs: takesMs, cleanMs: 0, decodeMs: 0 }));
			const frames = async function* (): AsyncGenerator<RawFrame> {
				let passed = 0;
				for (const [latent, share] of LATENT_SHARES.entries()) {
					await clock.sleep((share - passed) * takesMs, signal);
					passed = share;
					for (let at = 0; at < LATENT_FRAMES; at += 1) {
						yield { frameId: frameId++, chunkIndex: index, indexInChunk: latent * LATENT_FRAMES + at, width: 32, height: 32, data: new Uint8Array(1536), generatedAtMs: clock.nowMs() };
					}
				}
				await clock.sleep((1 - passed) * takesMs, signal);
				done();
			};
			return { chunkIndex: index, frames: frames(), timings };
		};
		return Promise.resolve({ seed: 1, nextChunkIndex: 0, snapshot: undefined, generate, close: () => Promise.resolve() });
	};
	return {
		model, profile: 'cpu-fp32', state: { kind: 'ready', coldStartMs: 0, pid: 0 }, onState: () => () => undefined, ready: () => Promise.resolve(),
		unknownWords: () => [], prepare: () => undefined, openStream, close: () => Promise.resolve(),
	};
};

const simulatedEncoders = (clock: SteppedClock): Encoders => ({
	implementation: 'node-av', codecs: ['h264'], close: () => Promise.resolve(),
	open: ({ codec }) => Promise.resolve({
		codec, isRateCostly: false, requestKeyframe: () => undefined, setBitrate: () => undefined, close: () => Promise.resolve(),
		encode: async ({ frameId }, rtpTimestamp) => {
			await clock.sleep(ENCODE_MS);
			return { codec, data: new Uint8Array(1), isKeyframe: frameId === 0, frameId, rtpTimestamp, encodeMs: ENCODE_MS };
		},
	}),
});

export type SimulatedSession = AsyncDisposable & {
	readonly clock: SteppedClock;
	readonly run: SessionRun;
	/** When each frame was handed over. */
	readonly sentAtMs: readonly number[];
	readonly all: <T extends ServerMessageType>(type: T) => readonly ServerMessages[T][];
	readonly change: (eventId: string) => void;
	readonly advanceTo: (ms: number) => Promise<void>;
};

/** Started with a viewer that watches, at time 0. */
export const simulateSession = async (chunkTime: ChunkTime, maxLeadMs = 1000): Promise<SimulatedSession> => {
	const clock = new SteppedClock();
	const engine = simulatedEngine(clock, chunkTime);
	const admission = new Admission({ engine, clock, places: 1, maxWaiting: 0, maxPerKey: 0, maxPerAddress: 0, maxShare: 1, usual: { width: model.width, height: model.height, steps: 2 } });
	const transport = new MemoryTransport();
	const metrics = createServerMetrics(new Metrics(), { version: '0', engine, admission, transport, connections: () => 1, sessionStates: () => [], publicationStates: () => [] });
	const viewer = new MemoryViewer('viewer');
	viewer.become({ kind: 'connected' });
	const messages: ServerMessage[] = [];
	const take = (message: ServerMessage): void => void messages.push(message);
	const request = { state: { prompts: [{ text: 'a cat', weight: 1 }], steps: 2, controls: {}, seed: 1 }, width: model.width, height: model.height, maxLeadMs };
	const ticket = admission.enter({ keyId: undefined, address: 'here', width: model.width, height: model.height, steps: 2, allowFewerSteps: false, onSteps: () => undefined, onQueued: () => undefined });
	// The parts of a session that a running line never asks for are left out.
	const parts = { config: TEST_CONFIG, engine, encoders: simulatedEncoders(clock), transport, admission, metrics, log: silentLog, clock, randomUint32: () => 0 } as unknown as SessionParts;
	const run = new SessionRun(parts, request, ticket, {
		send: take, sendOf: (_, message) => take(message), onLoss: (error) => take({ type: 'error', code: error.code, message: error.message } as ServerMessage),
		onFailed: (error) => {
			throw error;
		},
		watching: () => [viewer], isHeadless: () => false,
	});
	const life = new AbortController();
	run.changes.add({ eventId: 'start', receivedAtMs: 0 }, {});
	run.play('simulated', await engine.openStream(run.streamOptions), life.signal);
	run.line.setWatched(true);
	return {
		clock, run,
		get sentAtMs() {
			return viewer.metas.map((meta) => meta.t_sent_ms);
		},
		all: <T extends ServerMessageType>(type: T) => messages.filter((message) => message.type === type) as ServerMessages[T][],
		change: (eventId) => void run.changes.add({ eventId, receivedAtMs: clock.nowMs() }, { prompts: [{ text: eventId, weight: 1 }] }),
		advanceTo: (ms) => clock.advanceTo(ms),
		[Symbol.asyncDispose]: async () => {
			life.abort(new Error('The simulation is over.'));
			await run.close();
			metrics.close();
		},
	};
};
