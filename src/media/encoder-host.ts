/** Owns the encoder process: starts it, feeds it, and starts it again when it dies. */
import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { BoundedQueue } from '../base/bounded-queue.js';
import { i420Bytes, VIDEO_CODECS, type EncodedChunk, type RawFrame } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import type { EncoderOptions, Encoders, VideoEncoder } from './encoder.js';
import { checkEncoderOptions, type EncoderChoice, type EncoderEvent, type EncoderRequest } from './encoder-protocol.js';
import { chooseEncoder, clauseOf } from './encoder-choice.js';
import type { EncoderReport } from './encoder-self-test.js';
import { HARDWARE_ENCODERS, type EncoderImplementation } from './encoders/frame-encoder.js';
import type { PictureSize } from './encoders/try-out.js';

export type EncodersOptions = {
	readonly implementation: EncoderChoice;
	/** An ffmpeg to use in place of the package's; empty for that one. */
	readonly ffmpegPath?: string;
	/** Of the pictures to come: encoders in hardware are tried with it. Default 832x480. */
	readonly size?: PictureSize;
	/** For a process that does not become ready. Default 30000. */
	readonly startTimeoutMs?: number;
	/** For one that no longer answers. Default 10000. */
	readonly hangTimeoutMs?: number;
	readonly log: Log;
	readonly clock: Clock;
};

/** Loading 170 MB of libraries from a cold disk on a busy machine takes seconds; longer than this it will not come. */
const DEFAULT_START_TIMEOUT_MS = 30_000;
/** A frame takes milliseconds; a machine that swaps or a debugger may stop the process for some seconds. */
const DEFAULT_HANG_TIMEOUT_MS = 10_000;
const DEFAULT_SIZE: PictureSize = { width: 832, height: 480 };
/** A process that dies as soon as it starts is not started more often than this. */
const RESTART_INTERVAL_MS = 500;
/** Deaths within a minute after which `auto` stops trusting an encoder. */
const MOST_DEATHS = 3;
const DEATHS_WINDOW_MS = 60_000;
/** Frames of one encoder inside the process: half a second at 16 fps. A caller that is further ahead waits. */
const MOST_IN_FLIGHT = 8;
const CLOSE_TIMEOUT_MS = 2000;

type Job = { readonly frame: RawFrame; readonly rtpTimestamp: number; readonly capturedAtMs: number; readonly resolve: (chunk: EncodedChunk) => void; readonly reject: (error: Error) => void };

const died = (): TurbocastError => new TurbocastError('encoder_failed', 'The encoder process ended unexpectedly; it is being started again and the next frame is a key frame.');
const closedError = (): TurbocastError => new TurbocastError('encoder_failed', 'The encoder is closed.');

/** One running process; everything about it dies with it. */
type Running = { readonly child: ChildProcess; readonly implementation: EncoderImplementation; readonly pid: number };

class RemoteEncoder implements VideoEncoder {
	readonly codec: EncoderOptions['codec'];
	readonly #options: EncoderOptions;
	readonly #host: EncoderHost;
	readonly #id: number;
	readonly #slots = new BoundedQueue<true>(MOST_IN_FLIGHT, 'wait');
	readonly #jobs = new Map<number, Job>();
	/** Keeps calls in order while they wait for a slot or for the process. */
	#tail: Promise<unknown> = Promise.resolve();
	/** The process that knows this encoder. */
	#openIn: Running | undefined;
	#opened: { readonly resolve: () => void; readonly reject: (error: Error) => void } | undefined;
	#isOpening = false;
	#sequence = 0;
	#keyframe = false;
	#bitrateBps: number;
	#closing: Promise<void> | undefined;
	#closed: (() => void) | undefined;

	constructor(host: EncoderHost, id: number, options: EncoderOptions) {
		this.#host = host;
		this.#id = id;
		this.#options = options;
		this.#bitrateBps = options.bitrateBps;
		this.codec = options.codec;
	}

	/** Only x264 through node-av changes its rate in mid-stream; the others are opened anew. */
	get isRateCostly(): boolean {
		return this.#host.implementation !== 'node-av' || this.codec !== 'h264';
	}

	/** The process owes it an answer. */
	get isWaiting(): boolean {
		return this.#jobs.size > 0 || this.#isOpening || this.#closed !== undefined;
	}

	/** Opens the encoder in the present process unless it is open there. */
	async ensureOpen(): Promise<Running> {
		const running = await this.#host.running();
		if (this.#openIn !== running) {
			const opened = new Promise<void>((resolve, reject) => {
				this.#opened = { resolve, reject };
			});
			this.#openIn = running;
			this.#isOpening = true;
			this.#host.post(running, { type: 'open', encoder: this.#id, options: { ...this.#options, bitrateBps: this.#bitrateBps } });
			await opened.finally(() => {
				this.#isOpening = false;
			});
		}
		return running;
	}

	encode(frame: RawFrame, rtpTimestamp: number): Promise<EncodedChunk> {
		const capturedAtMs = this.#host.nowMs();
		const posted = this.#tail.then(() => this.#post(frame, rtpTimestamp, capturedAtMs));
		this.#tail = posted.catch(() => undefined);
		return posted.then((job) => job.chunk);
	}

	async #post(frame: RawFrame, rtpTimestamp: number, capturedAtMs: number): Promise<{ chunk: Promise<EncodedChunk> }> {
		this.#refuseIfClosed();
		const { width, height } = this.#options;
		if (frame.width !== width || frame.height !== height || frame.data.byteLength !== i420Bytes(width, height)) {
			throw new TurbocastError('encoder_failed', `This encoder takes I420 frames of ${width}x${height}, not ${frame.width}x${frame.height} in ${frame.data.byteLength} bytes; open another for another size.`);
		}
		await this.#slots.push(true);
		try {
			const running = await this.ensureOpen();
			this.#refuseIfClosed();
			const sequence = this.#sequence;
			this.#sequence += 1;
			const chunk = new Promise<EncodedChunk>((resolve, reject) => {
				this.#jobs.set(sequence, { frame, rtpTimestamp, capturedAtMs, resolve, reject });
			});
			// Its rejection is the caller's to see, through `encode`.
			chunk.catch(() => undefined);
			this.#host.post(running, { type: 'encode', encoder: this.#id, sequence, data: frame.data, keyframe: this.#keyframe, bitrateBps: this.#bitrateBps });
			this.#keyframe = false;
			return { chunk };
		} catch (error) {
			this.#slots.poll();
			throw error;
		}
	}

	requestKeyframe(): void {
		this.#keyframe = true;
	}

	setBitrate(bitrateBps: number): void {
		checkEncoderOptions({ ...this.#options, bitrateBps });
		this.#bitrateBps = bitrateBps;
	}

	onEvent(event: EncoderEvent): void {
		switch (event.type) {
			case 'opened':
				this.#opened?.resolve();
				break;
			case 'encoded':
				this.#settle(event.sequence, (job) => job.resolve({
					codec: this.codec, data: event.data, isKeyframe: event.isKeyframe,
					frameId: job.frame.frameId, rtpTimestamp: job.rtpTimestamp, encodeMs: event.encodeMs, capturedAtMs: job.capturedAtMs,
				}));
				break;
			case 'failed': {
				const error = new TurbocastError('encoder_failed', event.message);
				// Whoever shows the stream needs a whole picture after one that is missing.
				this.#keyframe = true;
				if (event.sequence === undefined) {
					this.#openIn = undefined;
					this.#opened?.reject(error);
				} else {
					this.#settle(event.sequence, (job) => job.reject(error));
				}
				break;
			}
			case 'closed':
				this.#closed?.();
				break;
			case 'ready':
			case 'unusable':
				break;
			default:
				assertNever(event);
		}
	}

	/** The process is gone, with what it held. A new one begins with a key frame by itself. */
	onDeath(): void {
		this.#openIn = undefined;
		this.#opened?.reject(died());
		this.#rejectJobs(died());
		this.#closed?.();
	}

	#settle(sequence: number, settle: (job: Job) => void): void {
		const job = this.#jobs.get(sequence);
		if (job !== undefined && this.#jobs.delete(sequence)) {
			this.#slots.poll();
			settle(job);
		}
	}

	#rejectJobs(error: Error): void {
		for (const sequence of [...this.#jobs.keys()]) {
			this.#settle(sequence, (job) => job.reject(error));
		}
	}

	#refuseIfClosed(): void {
		if (this.#closing !== undefined) {
			throw closedError();
		}
	}

	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	async #close(): Promise<void> {
		this.#rejectJobs(closedError());
		this.#slots.close();
		const running = this.#openIn;
		if (running !== undefined) {
			const closed = new Promise<void>((resolve) => {
				this.#closed = resolve;
			});
			this.#opened?.reject(closedError());
			this.#host.post(running, { type: 'close', encoder: this.#id });
			await closed;
		}
		this.#host.forget(this.#id);
	}
}

export class EncoderHost implements Encoders {
	readonly codecs = VIDEO_CODECS;
	readonly #log: Log;
	readonly #clock: Clock;
	readonly #ffmpegPath: string;
	readonly #encoders = new Map<number, RemoteEncoder>();
	readonly #choice: EncoderChoice;
	readonly #startTimeoutMs: number;
	readonly #hangTimeoutMs: number;
	/** What the process is told to take. */
	#process: EncoderChoice;
	/** Of those that were tried before the first process. */
	#reports: readonly EncoderReport[] = [];
	#heardAtMs = 0;
	#watch: ReturnType<typeof setTimeout> | undefined;
	#implementation: EncoderImplementation = 'ffmpeg';
	#running: Promise<Running> | undefined;
	#child: ChildProcess | undefined;
	#lastStartMs = -RESTART_INTERVAL_MS;
	#deathsMs: number[] = [];
	#nextId = 0;
	#closing: Promise<void> | undefined;

	private constructor({ implementation, ffmpegPath = '', startTimeoutMs = DEFAULT_START_TIMEOUT_MS, hangTimeoutMs = DEFAULT_HANG_TIMEOUT_MS, log, clock }: EncodersOptions) {
		this.#ffmpegPath = ffmpegPath;
		this.#choice = implementation;
		this.#process = implementation;
		this.#startTimeoutMs = startTimeoutMs;
		this.#hangTimeoutMs = hangTimeoutMs;
		this.#log = log;
		this.#clock = clock;
	}

	/** Chooses, starts the process and waits until it is ready. Throws `encoder_failed`. */
	static async start(options: EncodersOptions): Promise<EncoderHost> {
		const host = new EncoderHost(options);
		const { process, reports } = await chooseEncoder({ choice: options.implementation, ffmpegPath: host.#ffmpegPath, size: options.size ?? DEFAULT_SIZE });
		host.#process = process;
		host.#reports = reports;
		for (;;) {
			try {
				await host.running();
				return host;
			} catch (error) {
				// A library that kills its process in the self-test is not an exception that `auto` could have caught there.
				if (!host.#giveUpFor('it did not become ready')) {
					await host.close();
					throw error;
				}
			}
		}
	}

	/** What was found of each encoder: the one in use, those before it and those in hardware. */
	get reports(): readonly EncoderReport[] {
		return this.#reports;
	}

	/** The next in the line, if the choice is ours. */
	#giveUpFor(why: string): boolean {
		if (this.#choice !== 'auto' || this.#process === 'ffmpeg') {
			return false;
		}
		const before = this.#process === 'auto' ? 'node-av' : this.#process;
		this.#process = (HARDWARE_ENCODERS as readonly EncoderChoice[]).includes(this.#process) ? 'auto' : 'ffmpeg';
		this.#reports = [...this.#reports.filter(({ implementation }) => implementation !== before), { implementation: before, kind: 'refused', why }];
		this.#log.warn({ implementation: before, reason: why }, 'an encoder is given up for the next one');
		return true;
	}

	get implementation(): EncoderImplementation {
		return this.#implementation;
	}

	/** Of the present process, if there is one: for tests and for the log. */
	get pid(): number | undefined {
		return this.#child?.pid;
	}

	async open(options: EncoderOptions): Promise<VideoEncoder> {
		checkEncoderOptions(options);
		const id = this.#nextId;
		this.#nextId += 1;
		const encoder = new RemoteEncoder(this, id, options);
		this.#encoders.set(id, encoder);
		try {
			await encoder.ensureOpen();
			return encoder;
		} catch (error) {
			this.#encoders.delete(id);
			throw error;
		}
	}

	nowMs(): number {
		return this.#clock.nowMs();
	}

	/** The present process; started when there is none. */
	running(): Promise<Running> {
		if (this.#closing !== undefined) {
			return Promise.reject(closedError());
		}
		if (this.#running === undefined) {
			const running = this.#start();
			this.#running = running;
			running.catch(() => {
				if (this.#running === running) {
					this.#running = undefined;
				}
			});
		}
		return this.#running;
	}

	async #start(): Promise<Running> {
		const waitMs = this.#lastStartMs + RESTART_INTERVAL_MS - this.#clock.nowMs();
		if (waitMs > 0) {
			await this.#clock.sleep(waitMs);
		}
		if (this.#closing !== undefined) {
			throw closedError();
		}
		this.#lastStartMs = this.#clock.nowMs();
		// Standard error stays open to the terminal: what a library prints while it dies is worth reading.
		const child = fork(fileURLToPath(new URL('./encoder-process.js', import.meta.url)), [this.#process, this.#ffmpegPath], { serialization: 'advanced', stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
		this.#child = child;
		child.once('exit', (code, signal) => this.#onExit(child, code ?? signal));
		// Posting to a process that is dying fails here; 'exit' says the rest.
		child.on('error', () => undefined);
		return await new Promise<Running>((resolve, reject) => {
			const timer = setTimeout(() => child.kill('SIGKILL'), this.#startTimeoutMs);
			child.once('exit', () => {
				clearTimeout(timer);
				reject(died());
			});
			child.on('message', (message) => {
				const event = message as EncoderEvent;
				this.#heardAtMs = this.#clock.nowMs();
				switch (event.type) {
					case 'ready':
						clearTimeout(timer);
						this.#implementation = event.implementation;
						this.#told(event.implementation, event.reports, child.pid);
						resolve({ child, implementation: event.implementation, pid: child.pid ?? 0 });
						break;
					case 'unusable':
						reject(new TurbocastError('encoder_failed', event.message));
						child.kill('SIGKILL');
						break;
					case 'opened':
					case 'encoded':
					case 'failed':
					case 'closed':
						this.#encoders.get(event.encoder)?.onEvent(event);
						break;
					default:
						assertNever(event);
				}
			});
		});
	}

	#onExit(child: ChildProcess, reason: number | string | null): void {
		if (this.#child !== child) {
			return;
		}
		this.#child = undefined;
		this.#running = undefined;
		for (const encoder of this.#encoders.values()) {
			encoder.onDeath();
		}
		if (this.#closing !== undefined) {
			return;
		}
		this.#log.warn({ reason }, 'encoder process ended unexpectedly');
		const nowMs = this.#clock.nowMs();
		this.#deathsMs = [...this.#deathsMs.filter((deathMs) => nowMs - deathMs < DEATHS_WINDOW_MS), nowMs];
		if (this.#deathsMs.length >= MOST_DEATHS && this.#giveUpFor(`its process ended ${this.#deathsMs.length} times within a minute`)) {
			this.#deathsMs = [];
		}
		if (this.#encoders.size > 0) {
			// Ahead of the next frame, which would have to wait for it.
			this.running().catch(() => undefined);
		}
	}

	post(running: Running, request: EncoderRequest): void {
		if (running.child.connected) {
			running.child.send(request, () => undefined);
			this.#expectWord(running.child);
		}
	}

	/** One line, that says what encodes and why nothing else does. */
	#told(implementation: EncoderImplementation, reports: readonly EncoderReport[], pid: number | undefined): void {
		this.#implementation = implementation;
		this.#reports = [...this.#reports.filter((before) => !reports.some((report) => report.implementation === before.implementation)), ...reports];
		this.#log.info({ implementation, why: this.#reports.map(clauseOf).join('; '), pid }, 'encoder process ready');
	}

	/** While something is asked of it, the process says something now and then, or is ended: nothing else ends a driver that hangs. */
	#expectWord(child: ChildProcess): void {
		if (this.#watch !== undefined) {
			return;
		}
		this.#heardAtMs = this.#clock.nowMs();
		const isAwaited = (): boolean => this.#child === child && [...this.#encoders.values()].some((encoder) => encoder.isWaiting);
		const look = (): void => {
			this.#watch = undefined;
			if (!isAwaited()) {
				return;
			}
			const leftMs = this.#heardAtMs + this.#hangTimeoutMs - this.#clock.nowMs();
			if (leftMs > 0) {
				this.#watch = setTimeout(() => setImmediate(look), leftMs);
				return;
			}
			this.#log.warn({ silentMs: this.#hangTimeoutMs - leftMs }, 'the encoder process does not answer any more and is ended');
			if (this.#process !== 'auto') {
				this.#giveUpFor(`it did not answer for ${this.#hangTimeoutMs / 1000} seconds`);
			}
			child.kill('SIGKILL');
		};
		// What has come while this process itself was busy is read first.
		this.#watch = setTimeout(() => setImmediate(look), this.#hangTimeoutMs);
	}

	forget(id: number): void {
		this.#encoders.delete(id);
	}

	close(): Promise<void> {
		this.#closing ??= this.#close();
		return this.#closing;
	}

	async #close(): Promise<void> {
		const child = this.#child;
		const exited = child === undefined ? Promise.resolve() : new Promise<void>((resolve) => child.once('exit', () => resolve()));
		const timer = setTimeout(() => child?.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
		await Promise.all([...this.#encoders.values()].map((encoder) => encoder.close()));
		// The process ends itself, and its children, when the channel closes.
		if (child?.connected === true) {
			child.disconnect();
		}
		await exited;
		clearTimeout(timer);
		clearTimeout(this.#watch);
	}
}

/** Starts the encoder process. Throws `encoder_failed` when no encoder works here. */
export const startEncoders = (options: EncodersOptions): Promise<EncoderHost> => EncoderHost.start(options);
