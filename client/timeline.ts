/** Where each millisecond went: of a change from the call to the picture, of a frame from the engine to the screen, over the clocks of both sides. */
import type { FrameMeta, ServerMessages } from '../src/protocol/messages.js';
import type { ClockOffset } from './clock-sync.js';
import type { ShownFrame } from './platform.js';

/** What happens to every frame after it was generated, in order. */
export const FRAME_STAGES = [
	/** Waiting for its turn on the media clock. */
	'pace',
	/** Compressing the picture. */
	'encode',
	/** From the server to this side. */
	'network',
	/** In the jitter buffer. */
	'buffer',
	/** Decompressing the picture. */
	'unpack',
	/** From the decoder to the screen. */
	'display',
] as const;
export type FrameStage = (typeof FRAME_STAGES)[number];

/** All that happens to a change, in order. */
export const CHANGE_STAGES = [
	/** From the call to the server. */
	'uplink',
	/** Waiting for the next chunk to begin. */
	'wait',
	/** Denoising the chunk, with its prompt encoded and its past seen anew. */
	'denoise',
	/** Turning latents into pictures. */
	'decode',
	...FRAME_STAGES,
] as const;
export type ChangeStage = (typeof CHANGE_STAGES)[number];

export type Timeline<S extends string> = {
	/** Their sum is `totalMs`, exactly. A stage that this side cannot tell apart is 0, and its time is in the one after it. */
	readonly stagesMs: { readonly [stage in S]: number };
	readonly totalMs: number;
	/** `uplink` and `network` cross from one clock to the other: each may be wrong by this much. */
	readonly uncertaintyMs: number;
};
export type ChangeTimeline = Timeline<ChangeStage>;
export type FrameTimeline = Timeline<FrameStage>;

export type FrameParts = {
	readonly meta: Pick<FrameMeta, 't_generated_ms' | 't_taken_ms' | 't_sent_ms'>;
	readonly shown: ShownFrame;
	readonly clock: ClockOffset;
};
export type ChangeParts = FrameParts & {
	readonly askedAtMs: number;
	readonly serverLatencyMs: number | undefined;
	/** That of the frame. */
	readonly chunk: Pick<ServerMessages['chunk.completed'], 'timings' | 't_started_ms'>;
};

type Ends<S extends string> = { readonly [stage in S]: number | undefined };

/** Puts the moments in order: one that is unknown, or out of order by the error of a clock, leaves its time to the next. */
const layOut = <S extends string>(stages: readonly S[], startMs: number, ends: Ends<S>, uncertaintyMs: number): Timeline<S> => {
	const last = stages.at(-1);
	const endMs = Math.max((last === undefined ? undefined : ends[last]) ?? startMs, startMs);
	let atMs = startMs;
	const stagesMs = Object.fromEntries(stages.map((stage) => {
		const ms = Math.min(Math.max(ends[stage] ?? atMs, atMs), endMs) - atMs;
		atMs += ms;
		return [stage, ms];
	})) as { [stage in S]: number };
	return { stagesMs, totalMs: endMs - startMs, uncertaintyMs };
};

const frameEnds = ({ meta, shown, clock }: FrameParts): Ends<FrameStage> => {
	const presentedAtMs = shown.presentedAtMs ?? shown.atMs;
	return {
		pace: meta.t_taken_ms - clock.offsetMs,
		encode: meta.t_sent_ms - clock.offsetMs,
		network: shown.receivedAtMs,
		buffer: shown.decodeMs === undefined ? undefined : presentedAtMs - shown.decodeMs,
		unpack: presentedAtMs,
		display: shown.atMs,
	};
};

export const frameTimelineOf = (parts: FrameParts): FrameTimeline =>
	layOut(FRAME_STAGES, parts.meta.t_generated_ms - parts.clock.offsetMs, frameEnds(parts), parts.clock.uncertaintyMs);

/** `parts.meta` and `parts.shown` are of the frame that was shown: the first that carries the change, or a later one. */
export const changeTimelineOf = (parts: ChangeParts): ChangeTimeline => {
	const { askedAtMs, serverLatencyMs, meta, chunk, clock } = parts;
	const { queue_ms: queueMs, text_ms: textMs, recache_ms: recacheMs, denoise_ms: denoiseMs } = chunk.timings;
	const denoisingFromMs = chunk.t_started_ms + queueMs - clock.offsetMs;
	return layOut(CHANGE_STAGES, askedAtMs, {
		uplink: serverLatencyMs === undefined ? undefined : meta.t_sent_ms - serverLatencyMs - clock.offsetMs,
		wait: denoisingFromMs,
		denoise: denoisingFromMs + textMs + recacheMs + denoiseMs,
		decode: meta.t_generated_ms - clock.offsetMs,
		...frameEnds(parts),
	}, clock.uncertaintyMs);
};
