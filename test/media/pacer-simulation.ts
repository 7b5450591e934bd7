/** Drives a `Pacer` through time that is only counted: an engine with given generation times, a screen, and prompt edits. */
import { Pacer, type PacerOptions } from '../../src/media/pacer.js';

export type Generation = {
	/** From the start of the chunk to its first latent's frames, to those of every further latent, and to the end of the chunk. */
	readonly firstMs: number;
	readonly laterMs: number;
	readonly endMs: number;
};

export type Simulation = {
	/** Gaps between shown frames that exceed the longest interval of the media clock by more than half a frame. */
	readonly stalls: number;
	readonly stalledMs: number;
	/** From a prompt edit to the first frame that carries it. */
	readonly p50Ms: number;
	readonly p95Ms: number;
	readonly mostLeadMs: number;
	readonly fps: number;
	readonly shownFrames: number;
	readonly rtp: readonly { readonly atMs: number; readonly rtpTimestamp: number }[];
};

/** Encoding, network and display after a frame is taken. */
const DELIVERY_MS = 40;

/** Deterministic numbers in [0, 1). */
export const randomNumbers = (seed: number): (() => number) => {
	let state = seed >>> 0;
	return () => {
		state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
		return state / 2 ** 32;
	};
};

const percentile = (values: readonly number[], share: number): number =>
	[...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(share * values.length))] ?? Number.NaN;

export type SimulationOptions = {
	readonly seconds: number;
	readonly generation: (chunkIndex: number) => Generation;
	readonly framesPerLatent?: number;
	readonly pacer?: Partial<PacerOptions>;
	/** How late the session's timers fire. */
	readonly timerLateMs?: () => number;
	/** Changes that are made while it runs, after the first five seconds, this long after each other or up to twice as long; the chunk of each takes so much longer. */
	readonly changes?: { readonly everyMs: number; readonly recacheMs: number; readonly isHasty: boolean };
};

type Event = { readonly atMs: number; readonly run: () => void };

export const simulate = ({ seconds, generation, framesPerLatent = 4, pacer: changed = {}, timerLateMs = () => 0, changes }: SimulationOptions): Simulation => {
	const options = { fps: 16, framesPerChunk: 8, maxLeadMs: 1000, firstRtpTimestamp: 0, ...changed };
	const pacer = new Pacer(options);
	const events: Event[] = [];
	const random = randomNumbers(99);
	let nowMs = 0;
	const at = (atMs: number, run: () => void): void => {
		events.push({ atMs: Math.max(atMs, nowMs), run });
	};

	const chunkStarts: number[] = [];
	const shown: { atMs: number; chunkIndex: number; rtpTimestamp: number }[] = [];
	const queue: number[] = [];
	let stalls = 0;
	let stalledMs = 0;
	let mostLeadMs = 0;
	const waiting: number[] = [];
	const carried = new Map<number, number[]>();
	let startCheck = 0;
	let playCheck = 0;

	const play = (): void => {
		const check = ++playCheck;
		const due = pacer.nextDue(nowMs);
		if ('starved' in due) {
			return;
		}
		at(nowMs + due.dueInMs + (due.dueInMs > 0 ? timerLateMs() : 0), () => {
			if (check !== playCheck) {
				return;
			}
			const taken = pacer.frameTaken(nowMs);
			const last = shown.at(-1);
			// A frame stretched to its longest, a quarter, is slow but not still.
			const lateMs = last === undefined ? 0 : nowMs - last.atMs - 1250 / pacer.fps;
			if (lateMs > 500 / options.fps) {
				stalls += 1;
				stalledMs += lateMs;
			}
			shown.push({ atMs: nowMs, chunkIndex: queue.shift() ?? -1, rtpTimestamp: taken.rtpTimestamp });
			play();
			start();
		});
	};

	const start = (): void => {
		const check = ++startCheck;
		const decision = pacer.nextStart(nowMs);
		if (!decision.start) {
			at(nowMs + decision.checkInMs + timerLateMs(), () => {
				if (check === startCheck) {
					start();
				}
			});
			return;
		}
		const chunkIndex = chunkStarts.length;
		const due = waiting.splice(0);
		carried.set(chunkIndex, due);
		const { firstMs: plainMs, laterMs, endMs: plainEndMs } = generation(chunkIndex);
		const recacheMs = due.length === 0 ? 0 : (changes?.recacheMs ?? 0);
		const [firstMs, endMs] = [plainMs + recacheMs, plainEndMs + recacheMs];
		const beganMs = nowMs;
		chunkStarts.push(beganMs);
		pacer.chunkStarted(beganMs);
		for (let latent = 0; latent * framesPerLatent < options.framesPerChunk; latent += 1) {
			at(beganMs + firstMs + latent * laterMs, () => {
				for (let index = 0; index < framesPerLatent && latent * framesPerLatent + index < options.framesPerChunk; index += 1) {
					queue.push(chunkIndex);
					pacer.frameQueued(nowMs);
				}
				mostLeadMs = Math.max(mostLeadMs, pacer.leadMs(nowMs));
				play();
			});
		}
		at(beganMs + Math.max(endMs, firstMs + laterMs * (options.framesPerChunk / framesPerLatent - 1)), () => {
			pacer.chunkFinished(nowMs);
			start();
		});
	};

	const change = (): void => {
		waiting.push(nowMs);
		if (changes?.isHasty === true) {
			pacer.changeWaits(nowMs);
		}
		play();
		start();
		at(nowMs + (1 + random()) * (changes?.everyMs ?? 0), change);
	};
	if (changes !== undefined) {
		at(5000, change);
	}

	start();
	while (events.length > 0 && nowMs < seconds * 1000) {
		const next = events.reduce((a, b) => (b.atMs < a.atMs ? b : a));
		events.splice(events.indexOf(next), 1);
		nowMs = next.atMs;
		next.run();
	}

	// Edits at random moments after the first five seconds; each lands on the first chunk that starts at or after it.
	const latencies: number[] = [];
	for (const [chunkIndex, atMs] of [...carried].flatMap(([index, times]) => times.map((time) => [index, time] as const))) {
		const frame = shown.find((entry) => entry.chunkIndex === chunkIndex);
		if (frame !== undefined) {
			latencies.push(frame.atMs - atMs + DELIVERY_MS);
		}
	}
	for (let edit = 0; changes === undefined && edit < 2000; edit += 1) {
		const editMs = 5000 + random() * (seconds - 10) * 1000;
		const chunkIndex = chunkStarts.findIndex((startMs) => startMs >= editMs);
		const frame = shown.find((entry) => entry.chunkIndex === chunkIndex);
		if (frame !== undefined && chunkIndex >= 0) {
			latencies.push(frame.atMs - editMs + DELIVERY_MS);
		}
	}
	return {
		stalls, stalledMs, mostLeadMs, fps: pacer.fps, shownFrames: shown.length,
		p50Ms: percentile(latencies, 0.5), p95Ms: percentile(latencies, 0.95),
		rtp: shown.map(({ atMs, rtpTimestamp }) => ({ atMs, rtpTimestamp })),
	};
};
