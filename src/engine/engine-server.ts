/**
 * The engine's side of the protocol (protocol.ts): several streams, each with one chunk at a time. Streams of own models take turns run by run (turns.ts), published
 * networks make one chunk after the other; either way the chunk whose first picture is due first goes first. Whatever fails becomes an event.
 */
import { isOwnModel } from '../model/spec.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import { ClipGenerator } from './clip-generator.js';
import { Generator } from './generator.js';
import type { Networks } from './networks.js';
import { PromptEncoder } from './prompt-encoder.js';
import { sizesThatPay } from './sizes-that-pay.js';
import { inTurn, Turn, Turns } from './turns.js';
import { DEFAULT_MAX_STREAMS, type EngineEvent, type EngineRequest } from './protocol.js';

/** Prompts waiting to be encoded ahead of their use; newer ones push out the oldest, which is then encoded when it is used. */
const MAX_HINTS = 8;

type Loaded = { readonly networks: Networks; readonly prompts: PromptEncoder };
type Open = Extract<EngineRequest, { readonly type: 'stream.open' }>;
type Generate = Extract<EngineRequest, { readonly type: 'chunk.generate' }>;
type Job = { readonly request: Generate; readonly stream: Stream; readonly cancel: AbortController; readonly queuedAtMs: number; readonly dueAtMs: number };
type Stream = {
	readonly options: Open;
	/** Made with the first chunk, because networks of another size may have to be loaded. */
	generator: Generator | ClipGenerator | undefined;
	readonly turn: Turn;
	job: Job | undefined;
};

export type EngineServerOptions = {
	/** Networks of one output size, and of one length where they make clips; called once for each. The server closes what it was given. */
	readonly load: (size: { readonly width: number; readonly height: number; readonly latents?: number | undefined }) => Promise<Networks>;
	readonly send: (event: EngineEvent) => void;
	/** Whether steps of several streams are computed together only in such numbers as were measured to pay, when the networks are warmed. Default false. */
	readonly isBatchMeasured?: boolean;
	/** Default `DEFAULT_MAX_STREAMS`. */
	readonly maxStreams?: number | undefined;
	readonly nowMs: () => number;
};

const sizeKey = ({ width, height, latents }: Pick<Open, 'width' | 'height' | 'latents'>): string => `${width}x${height}x${latents ?? 'usual'}`;

const createGenerator = ({ networks, prompts }: Loaded, turn: Turn, { seed, firstChunkIndex, latents, image, restore }: Open): Generator | ClipGenerator => {
	const { nowMs } = turn;
	const generator = networks.spec.clip === undefined
		? new Generator(inTurn(networks, turn), { encode: (prompt) => (prompts.isKnown(prompt) ? prompts.encode(prompt) : turn.alone(() => prompts.encode(prompt), true)) }, nowMs, { seed, firstChunkIndex })
		: new ClipGenerator(networks, prompts, nowMs, { seed, firstChunkIndex, latents: latents ?? networks.spec.stream.latents_per_chunk, image });
	if (restore !== undefined) {
		generator.restore(restore);
	}
	return generator;
};

export class EngineServer {
	readonly #options: EngineServerOptions;
	/** One per size of the model; a model has few. */
	readonly #loaded = new Map<string, Loaded>();
	readonly #streams = new Map<number, Stream>();
	/** At most one per stream. */
	readonly #jobs: Job[] = [];
	readonly #hints: string[] = [];
	/** What is left to load ahead of the first request. */
	#preparation: AsyncGenerator<undefined, void> | undefined;
	readonly #turns: Turns;
	readonly #hintTurn: Turn;
	/** Chunks that are being made in turn. */
	readonly #running = new Set<Promise<void>>();
	#isWorking = false;
	#working: Promise<void> | undefined;
	#isClosing = false;
	#current: Loaded | undefined;

	constructor(options: EngineServerOptions) {
		this.#options = options;
		this.#turns = new Turns({ nowMs: options.nowMs });
		this.#hintTurn = new Turn(this.#turns);
	}

	/** Loads the networks of a size and runs every graph as a stream does, so that nobody's first chunk pays for it. */
	async warm(width: number, height: number): Promise<{ readonly loadMs: number; readonly warmMs: number }> {
		const { nowMs } = this.#options;
		const startMs = nowMs();
		const { networks, prompts } = await this.#load({ width, height });
		const loadedMs = nowMs();
		const { spec } = networks;
		if (!isOwnModel(spec)) {
			// A published network is loaded when it is used: at which size is not known yet, and a forward may take minutes.
			return { loadMs: loadedMs - startMs, warmMs: 0 };
		}
		const [least = 1, more = least] = Object.keys(spec.schedules).map(Number).sort((a, b) => a - b);
		const generator = new Generator(networks, prompts, nowMs, { seed: 0, firstChunkIndex: 0 });
		try {
			// Twice: without a past and with one. On a device what comes between two steps is a graph of its own.
			for (const steps of [least, networks.resident === undefined ? least : more]) {
				await generator.generateChunk({ prompt: spec.examples[0] ?? '', steps, controls: {} }, () => undefined, new AbortController().signal);
			}
		} catch (error) {
			const failure = TurbocastError.from(error);
			// Retrying cannot help where the very first chunk of a plain prompt is not a picture.
			throw failure.code === 'generation_invalid'
				? new TurbocastError('model_invalid', `The weights of the model ${spec.name} make no picture: ${failure.message}`, { cause: error })
				: failure;
		} finally {
			generator.close();
		}
		return { loadMs: loadedMs - startMs, warmMs: nowMs() - loadedMs };
	}

	/** Uses the time until the first chunk is asked for: loads what that would wait for, of the size that was warmed. Only published networks leave anything. */
	prepare(): void {
		this.#preparation = this.#current?.networks.prepare?.();
		this.#work();
	}

	/** Takes one request; never throws. */
	receive(request: EngineRequest): void {
		switch (request.type) {
			case 'stream.open':
				// The host counts too; beyond the bound a stream simply does not exist, and its chunks fail.
				if (this.#streams.size < (this.#options.maxStreams ?? DEFAULT_MAX_STREAMS)) {
					this.#streams.set(request.stream, { options: request, generator: undefined, turn: new Turn(this.#turns), job: undefined });
				}
				return;
			case 'chunk.generate':
				return this.#enqueue(request);
			case 'prompt.prepare':
				this.#hints.push(request.prompt);
				this.#hints.splice(0, this.#hints.length - MAX_HINTS);
				return this.#work();
			case 'chunk.cancel':
				return this.#cancel(this.#streams.get(request.stream)?.job, 'Cancelled by the host.');
			case 'stream.close':
				this.#cancel(this.#streams.get(request.stream)?.job, 'The stream was closed.');
				this.#forget(request.stream);
				return;
			case 'engine.close':
				void this.close();
				return;
			default:
				return assertNever(request);
		}
	}

	/** Ends after the step at hand. Idempotent. */
	async close(): Promise<void> {
		this.#isClosing = true;
		for (const { job } of this.#streams.values()) {
			this.#cancel(job, 'The engine is closing.');
		}
		await this.#working;
		await Promise.all(this.#running);
		for (const { networks } of this.#loaded.values()) {
			await networks.close();
		}
	}

	/** After the step at hand of a chunk that is being made, which was cancelled. */
	#forget(id: number): void {
		const stream = this.#streams.get(id);
		this.#streams.delete(id);
		if (stream?.job === undefined) {
			stream?.generator?.close();
		}
	}

	async #load(size: Pick<Open, 'width' | 'height' | 'latents'>): Promise<Loaded> {
		let loaded = this.#loaded.get(sizeKey(size));
		if (loaded === undefined) {
			await this.#closeUnused();
			const { width, height, latents } = size;
			const networks = await this.#loadThatPays({ width, height, latents });
			loaded = { networks, prompts: new PromptEncoder(networks) };
			this.#loaded.set(sizeKey(size), loaded);
		}
		this.#current = loaded;
		return loaded;
	}

	/** As they come, or with as many streams together as is measured to be faster than one after the other. */
	async #loadThatPays(size: Parameters<EngineServerOptions['load']>[0]): Promise<Networks> {
		const { load, isBatchMeasured, nowMs } = this.#options;
		const networks = await load(size);
		const { together } = networks;
		if (isBatchMeasured !== true || together === undefined) {
			return networks;
		}
		const sizes = await sizesThatPay(networks, together, nowMs);
		return { ...networks, together: sizes.length === 0 ? undefined : { ...together, sizes } };
	}

	/** Published networks are large: those of a size that no stream has make room for another. */
	async #closeUnused(): Promise<void> {
		const used = new Set([...this.#streams.values()].map(({ options }) => sizeKey(options)));
		for (const [key, { networks }] of this.#loaded) {
			if (!isOwnModel(networks.spec) && !used.has(key)) {
				this.#loaded.delete(key);
				await networks.close();
			}
		}
	}

	#enqueue(request: Generate): void {
		if (this.#isClosing) {
			return this.#fail(request, new TurbocastError('draining', 'The engine is closing.'));
		}
		const stream = this.#streams.get(request.stream);
		if (stream === undefined) {
			return this.#fail(request, new TurbocastError('invalid_state', 'There is no such stream on this engine.'));
		}
		const expected = stream.generator?.nextChunkIndex ?? stream.options.firstChunkIndex;
		if (stream.job !== undefined || request.chunkIndex !== expected) {
			return this.#fail(request, new TurbocastError('invalid_state', `The stream's next chunk is ${expected}, one at a time.`));
		}
		const queuedAtMs = this.#options.nowMs();
		stream.job = { request, stream, cancel: new AbortController(), queuedAtMs, dueAtMs: queuedAtMs + (request.dueInMs ?? 0) };
		this.#jobs.push(stream.job);
		this.#work();
	}

	#fail({ stream, chunkIndex }: Generate, error: unknown): void {
		const { code, message } = TurbocastError.from(error);
		this.#options.send({ type: 'chunk.failed', stream, chunkIndex, code, message });
	}

	/** Works until there is nothing left to do; a second call while it does changes nothing. */
	#work(): void {
		if (!this.#isWorking) {
			this.#isWorking = true;
			this.#working = this.#drain();
		}
	}

	async #drain(): Promise<void> {
		while (!this.#isClosing) {
			const hint = this.#hints.shift();
			if (hint !== undefined) {
				// Due at once, ahead of chunks that have time. A failure shows where it is used, where somebody is told.
				this.#hintTurn.begin(this.#options.nowMs());
				const prompts = this.#current?.prompts;
				await this.#hintTurn.alone(async () => prompts?.encode(hint)).catch(() => undefined);
				continue;
			}
			const job = this.#takeFirst();
			if (job !== undefined) {
				// From here on what is needed is loaded when it is, of the size that is asked for.
				this.#preparation = undefined;
				await this.#begin(job);
				continue;
			}
			if (this.#preparation === undefined) {
				break;
			}
			// A failure shows with the first chunk, where somebody is told.
			const { done } = await this.#preparation.next().catch(() => ({ done: true }));
			this.#preparation = done === true ? undefined : this.#preparation;
		}
		// In the same breath as the last look at the queues, so that no request falls between the two.
		this.#isWorking = false;
	}

	/** The job whose picture is due first. */
	#takeFirst(): Job | undefined {
		const first = this.#jobs.reduce<Job | undefined>((best, job) => (best === undefined || job.dueAtMs < best.dueAtMs ? job : best), undefined);
		if (first !== undefined) {
			this.#jobs.splice(this.#jobs.indexOf(first), 1);
		}
		return first;
	}

	/** Waits for a chunk of published networks; one of an own model goes on in turn with others. */
	async #begin(job: Job): Promise<void> {
		const loaded = await this.#load(job.stream.options).catch((error: unknown) => {
			this.#end(job, () => (job.cancel.signal.aborted ? this.#options.send({ type: 'chunk.cancelled', stream: job.request.stream, chunkIndex: job.request.chunkIndex }) : this.#fail(job.request, error)));
		});
		if (loaded === undefined) {
			return;
		}
		const generated = this.#generate(job, loaded);
		if (!isOwnModel(loaded.networks.spec)) {
			return generated;
		}
		this.#running.add(generated);
		void generated.finally(() => this.#running.delete(generated));
	}

	/** First free, then told: the answer may bring the next request. */
	#end({ request, stream }: Job, tell: () => void): void {
		stream.job = undefined;
		if (this.#streams.get(request.stream) !== stream) {
			stream.generator?.close();
		}
		tell();
	}

	/** Stops a chunk that is being made within one step, and one that waits at once. */
	#cancel(job: Job | undefined, reason: string): void {
		if (job === undefined) {
			return;
		}
		job.cancel.abort(new Error(reason));
		const waiting = this.#jobs.indexOf(job);
		if (waiting >= 0) {
			this.#jobs.splice(waiting, 1);
			job.stream.job = undefined;
			this.#options.send({ type: 'chunk.cancelled', stream: job.request.stream, chunkIndex: job.request.chunkIndex });
		}
	}

	async #generate(job: Job, loaded: Loaded): Promise<void> {
		const { request, stream, cancel, queuedAtMs, dueAtMs } = job;
		const { send, nowMs } = this.#options;
		const { width, height, checkpoints } = stream.options;
		const startMs = nowMs();
		const address = { stream: request.stream, chunkIndex: request.chunkIndex };
		let frames = 0;
		let verdict: () => void;
		try {
			cancel.signal.throwIfAborted();
			stream.turn.begin(dueAtMs, cancel.signal);
			stream.generator ??= createGenerator(loaded, stream.turn, stream.options);
			const { timings, checkpoint } = await stream.generator.generateChunk(request.inputs, (firstIndexInChunk, pictures) => {
				frames += pictures.length;
				send({ type: 'frames', ...address, firstIndexInChunk, width, height, frames: pictures });
			}, cancel.signal, checkpoints);
			const queueMs = startMs - queuedAtMs + stream.turn.lostMs;
			verdict = () => send({ type: 'chunk.done', ...address, frames, timings: { queueMs, ...timings }, ...(checkpoints && checkpoint !== undefined ? { checkpoint } : {}) });
		} catch (error) {
			verdict = cancel.signal.aborted ? () => send({ type: 'chunk.cancelled', ...address }) : () => this.#fail(request, error);
		}
		this.#end(job, verdict);
	}
}
