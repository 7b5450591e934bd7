/**
 * The engine as the main process has it: a child process that is started, watched, restarted and ended here, and the streams
 * on it. Nothing here ever waits for the engine with the event loop in hand, and nothing here imports the tensor library.
 */
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { openModelFolder } from '../model/model-folder.js';
import { checkSize } from '../model/sizes.js';
import { framesFromStart, framesPerChunk, type ModelSpec } from '../model/spec.js';
import type { Tokenizer } from '../model/tokenizer.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_SEED } from '../protocol/limits.js';
import { EngineChild, type EngineChildListener, type EngineProcessOptions } from './engine-child.js';
import type { Engine, EngineState, EngineStream, StreamOptions } from './engine.js';
import { DEFAULT_MAX_STREAMS, MAX_CLIP_LATENTS, type EngineEvent, type EngineProfile, type StandbyMode } from './protocol.js';
import { EnginePatience } from './patience.js';
import { RESTART_POLICY, restartDelayMs } from './restart-policy.js';
import { type Spare, Standby, wantsStandby } from './standby.js';
import { StreamHost } from './stream-host.js';

export type EngineHostOptions = EngineProcessOptions & {
	readonly log: Log;
	readonly clock: Clock;
	/** Whether a second process waits to take over; default `off`. */
	readonly standby?: StandbyMode;
};

const isWhole = (value: number, max: number): boolean => Number.isInteger(value) && value >= 0 && value <= max;

export class EngineHost implements Engine {
	readonly model: ModelSpec;
	readonly #options: EngineHostOptions;
	/** What each process is started with: all of the options that are not the host's own. */
	readonly #processOptions: EngineProcessOptions;
	readonly #tokenizer: Tokenizer;
	readonly #listeners = new Set<(state: EngineState) => void>();
	readonly #streams = new Map<number, StreamHost>();
	/** Of the streams that are open: what a chunk of theirs takes depends on it. */
	readonly #sizes = new Map<number, string>();
	readonly #patience: EnginePatience;
	/** Ends the wait before a restart. */
	readonly #closed = new AbortController();
	readonly #standby: Standby | undefined;
	#state: EngineState = { kind: 'starting' };
	#child: EngineChild | undefined;
	#crashesMs: number[] = [];
	#nextStream = 0;
	#closing: Promise<void> | undefined;

	/**
	 * Reads what a model is and starts its process; `ready` waits for that. Throws `model_invalid`, or `weights_corrupt` when a file
	 * is missing or cut short. A file that was changed is found by the process, which reads it: the engine is `failed` then.
	 */
	static async start(options: EngineHostOptions): Promise<EngineHost> {
		const folder = await openModelFolder(options.modelFolder, { verify: false });
		return new EngineHost(folder.spec, folder.tokenizer, options);
	}

	private constructor(model: ModelSpec, tokenizer: Tokenizer, options: EngineHostOptions) {
		this.model = model;
		this.#patience = new EnginePatience(model);
		this.#tokenizer = tokenizer;
		this.#options = options;
		const { clock, log, standby = 'off', ...processOptions } = options;
		this.#processOptions = processOptions;
		this.#standby = wantsStandby(standby, model, process.availableMemory()) ? new Standby({ clock, log, start: (listener) => this.#start(listener) }) : undefined;
		this.#spawn();
	}

	get profile(): EngineProfile {
		return this.#options.profile;
	}

	get state(): EngineState {
		return this.#state;
	}

	onState(listener: (state: EngineState) => void): () => void {
		// A function of its own for every call, so that one listener may be added twice.
		const entry = (state: EngineState): void => listener(state);
		this.#listeners.add(entry);
		return () => this.#listeners.delete(entry);
	}

	ready(signal?: AbortSignal): Promise<void> {
		return new Promise((resolve, reject) => {
			const settle = (state: EngineState): void => {
				const done = (finish: () => void): void => {
					stop();
					signal?.removeEventListener('abort', onAbort);
					finish();
				};
				switch (state.kind) {
					case 'ready':
						return done(resolve);
					case 'failed':
						return done(() => reject(state.error));
					case 'closed':
						return done(() => reject(new TurbocastError('draining', 'The engine was closed.')));
					case 'starting':
					case 'restarting':
				}
			};
			const onAbort = (): void => {
				stop();
				reject(signal?.reason as Error);
			};
			const stop = this.onState(settle);
			if (signal?.aborted === true) {
				return onAbort();
			}
			signal?.addEventListener('abort', onAbort, { once: true });
			settle(this.#state);
		});
	}

	unknownWords(prompt: string): string[] {
		return [...this.#tokenizer.tokenize(prompt).unknownWords];
	}

	prepare(prompt: string): void {
		if (this.#state.kind === 'ready') {
			this.#child?.sendHint({ type: 'prompt.prepare', prompt });
		}
	}

	// A rejection rather than a throw, as the contract has it: hence async without await.
	// eslint-disable-next-line @typescript-eslint/require-await
	async openStream(options: StreamOptions): Promise<EngineStream> {
		const child = this.#child;
		if (this.#state.kind !== 'ready' || child === undefined) {
			const cause = this.#state.kind === 'failed' || this.#state.kind === 'restarting' ? this.#state.error : undefined;
			throw new TurbocastError('not_ready', `The engine is ${this.#state.kind}${cause === undefined ? '' : `: ${cause.message}`}`, { cause });
		}
		this.#checkOptions(options);
		const id = this.#nextStream++;
		const sizeName = `${options.width}x${options.height}x${options.latents ?? 'usual'}`;
		const stream = new StreamHost(id, options, {
			send: (request) => child.send(request),
			nowMs: this.#options.clock.nowMs,
			model: this.model,
			framesPerChunk: options.latents === undefined ? framesPerChunk(this.model) : framesFromStart(this.model, options.latents),
			onChunk: (tookMs) => this.#patience.observe(sizeName, tookMs),
			onClosed: () => {
				this.#streams.delete(id);
				this.#sizes.delete(id);
			},
		});
		this.#streams.set(id, stream);
		this.#sizes.set(id, sizeName);
		const { seed, width, height, latents, image, keepsSnapshot = false, restore } = options;
		child.send({ type: 'stream.open', stream: id, seed, width, height, firstChunkIndex: stream.nextChunkIndex, latents, image, checkpoints: keepsSnapshot, restore });
		return stream;
	}

	close(): Promise<void> {
		this.#closing ??= (async () => {
			this.#enter({ kind: 'closed' });
			this.#closed.abort();
			this.#endStreams(new TurbocastError('engine_failed', 'The engine was closed.'));
			await Promise.all([this.#child?.close(), this.#standby?.close()]);
			this.#options.log.info({}, 'Engine closed.');
			this.#listeners.clear();
		})();
		return this.#closing;
	}

	#checkOptions({ seed, width, height, latents, image, firstChunkIndex = 0, firstFrameId = 0 }: StreamOptions): void {
		if (!isWhole(seed, MAX_SEED)) {
			throw new TurbocastError('invalid_request', `seed must be a whole number from 0 to ${MAX_SEED}.`, { param: 'seed' });
		}
		checkSize(this.model, width, height);
		if (latents !== undefined && (this.model.clip === undefined || !isWhole(latents - 1, MAX_CLIP_LATENTS - 1))) {
			throw new TurbocastError('invalid_request', this.model.clip === undefined
				? `The model ${this.model.name} makes streams, not clips of a length.`
				: `A clip has from 1 to ${MAX_CLIP_LATENTS} latent frames, not ${latents}.`, { param: 'latents' });
		}
		if (image !== undefined && image.length !== 3 * width * height) {
			throw new TurbocastError('invalid_request', `A picture of ${width}x${height} has ${3 * width * height} bytes of RGB, not ${image.length}.`, { param: 'image' });
		}
		// Chunk indices name noise with 32 bits (noise.ts).
		if (!isWhole(firstChunkIndex, MAX_SEED) || !isWhole(firstFrameId, Number.MAX_SAFE_INTEGER)) {
			throw new TurbocastError('invalid_request', 'firstChunkIndex and firstFrameId must be whole numbers from 0.', { param: 'firstChunkIndex' });
		}
		const { maxStreams = DEFAULT_MAX_STREAMS } = this.#options;
		if (this.#streams.size >= maxStreams) {
			throw new TurbocastError('capacity_exhausted', `This engine serves ${maxStreams} streams already (engine.max_streams); close one first.`);
		}
	}

	#enter(state: EngineState): void {
		this.#state = state;
		for (const listener of [...this.#listeners]) {
			listener(state);
		}
	}

	#start(listener: EngineChildListener): EngineChild {
		const { clock } = this.#options;
		const patience = { loadMs: this.#patience.loadMs, silentMs: () => this.#patience.silentMs([...this.#sizes.values()]) };
		return new EngineChild(this.#processOptions, { clock, patience }, listener);
	}

	#spawn(): void {
		const spawnedAtMs = this.#options.clock.nowMs();
		const child: EngineChild = this.#start({
			onEvent: (event) => this.#receive(child, event, spawnedAtMs),
			onExit: (why) => this.#lost(why),
		});
		this.#child = child;
	}

	/** The process that waited goes to work. */
	#takeOver({ child, startedAtMs, ready, listen }: Spare): void {
		this.#child = child;
		listen({ onEvent: (event) => this.#receive(child, event, startedAtMs), onExit: (why) => this.#lost(why) });
		if (ready !== undefined) {
			this.#becomeReady(child, ready.event, ready.coldStartMs);
		}
	}

	#becomeReady({ pid }: EngineChild, { loadMs, warmMs }: Extract<EngineEvent, { readonly type: 'engine.ready' }>, coldStartMs: number): void {
		this.#options.log.info({ pid, coldStartMs, loadMs, warmMs }, 'Engine ready.');
		this.#enter({ kind: 'ready', coldStartMs, pid });
		this.#standby?.prepare();
	}

	#receive(child: EngineChild, event: EngineEvent, spawnedAtMs: number): void {
		if (this.#state.kind === 'closed' || this.#state.kind === 'failed') {
			return;
		}
		switch (event.type) {
			case 'engine.ready':
				return this.#becomeReady(child, event, this.#options.clock.nowMs() - spawnedAtMs);
			case 'engine.failed': {
				// An error that a second try cannot mend is final; any other counts as a crash.
				const error = new TurbocastError(event.code, event.message);
				return error.entry.retryable ? child.kill(error.message) : this.#giveUp(error);
			}
			case 'engine.heartbeat':
				return;
			case 'frames':
			case 'chunk.done':
			case 'chunk.cancelled':
			case 'chunk.failed':
				return this.#streams.get(event.stream)?.receive(event);
		}
	}

	/** The process is gone: its streams end, and the one that waits takes over, or another is started, unless that has failed too often. */
	#lost(why: string): void {
		this.#child = undefined;
		if (this.#state.kind === 'closed' || this.#state.kind === 'failed') {
			return;
		}
		const { clock, log } = this.#options;
		const error = new TurbocastError('engine_failed', `The engine process stopped (${why}); it is being restarted.`);
		const nowMs = clock.nowMs();
		this.#crashesMs = [...this.#crashesMs, nowMs].slice(-RESTART_POLICY.maxCrashes);
		const delayMs = restartDelayMs(this.#crashesMs, nowMs);
		if (delayMs === undefined) {
			return this.#giveUp(new TurbocastError('engine_failed', `The engine process stopped ${this.#crashesMs.length} times in short order, last because ${why}; restart the server when that is mended.`));
		}
		const attempt = this.#crashesMs.length;
		const spare = this.#standby?.take();
		log.warn({ why, attempt, ...(spare === undefined ? { delayMs } : {}) }, spare === undefined ? 'Engine process lost; starting another.' : 'Engine process lost; the standby takes over.');
		this.#enter({ kind: 'restarting', error, attempt });
		this.#endStreams(error);
		if (spare !== undefined) {
			return this.#takeOver(spare);
		}
		clock.sleep(delayMs, this.#closed.signal).then(() => this.#spawn()).catch((cause: unknown) => {
			// Closed while it waited; or the system would not give us a process, which is one more crash.
			this.#lost(TurbocastError.from(cause).message);
		});
	}

	#giveUp(error: TurbocastError): void {
		this.#options.log.error({ code: error.code, error: error.message }, 'Engine given up.');
		this.#enter({ kind: 'failed', error });
		this.#endStreams(error);
		void this.#standby?.close();
	}

	#endStreams(error: TurbocastError): void {
		for (const stream of [...this.#streams.values()]) {
			stream.end(error);
		}
	}
}
