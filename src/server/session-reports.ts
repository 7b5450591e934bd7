/** What the two loops of a session report, in the words of the protocol. */
import type { ServerMessages } from '../protocol/messages.js';
import type { CarriedChange } from './change-log.js';
import type { ChunkReport } from './generation-loop.js';
import type { PlayedFrame } from './playout-loop.js';

export const chunkMessage = (report: ChunkReport, { modelFps, fps }: { readonly modelFps: number; readonly fps: number }): ServerMessages['chunk.completed'] => {
	const { timings } = report;
	return {
		type: 'chunk.completed',
		chunk_index: report.chunkIndex, frames: report.frames, first_frame_id: report.firstFrameId,
		media_ms: (report.firstFrameId * 1000) / modelFps,
		steps: report.inputs.steps, seed: report.seed,
		timings: { queue_ms: timings.queueMs, text_ms: timings.textMs, recache_ms: timings.recacheMs, denoise_ms: timings.denoiseMs, clean_ms: timings.cleanMs, decode_ms: timings.decodeMs },
		t_started_ms: report.startedAtMs, t_completed_ms: report.startedAtMs + report.generateMs,
		lead_ms: report.leadMs,
		fps,
		deadline_missed: report.deadlineMissed,
	};
};

/** Word that `played`, handed over at `nowMs`, is the first frame that carries the change. */
export const appliedMessage = (change: CarriedChange, { frame, rtpTimestamp, mediaMs, takenAtMs }: PlayedFrame, nowMs: number): ServerMessages['event.applied'] => ({
	type: 'event.applied', ...(change.eventId === undefined ? {} : { event_id: change.eventId }),
	chunk_index: frame.chunkIndex, frame_id: frame.frameId, rtp_timestamp: rtpTimestamp, media_ms: mediaMs,
	server_latency_ms: nowMs - change.receivedAtMs,
	timings: {
		wait_ms: change.startedAtMs - change.receivedAtMs, generate_ms: frame.generatedAtMs - change.startedAtMs,
		hold_ms: takenAtMs - frame.generatedAtMs, encode_ms: nowMs - takenAtMs,
	},
});
