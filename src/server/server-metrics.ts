/** What the server counts; read at `/metrics`. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Metrics } from '../base/metrics.js';
import type { Engine } from '../engine/engine.js';
import type { Admission } from './admission.js';

const LOOP_RESOLUTION_MS = 10;
const LOOP_WINDOW_MS = 10_000;
const LATENCY_BOUNDS_MS = [50, 100, 200, 300, 400, 500, 650, 800, 1000, 1500, 2500, 5000];

const QUEUE_BOUNDS_MS = [10, 100, 1000, 5000, 15_000, 60_000, 300_000];

export type ServerMetrics = ReturnType<typeof createServerMetrics>;

export const createServerMetrics = (metrics: Metrics, parts: { engine: Engine; admission: Admission; connections: () => number }) => {
	const loopDelay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
	loopDelay.enable();
	let loopDelayP99Ms = 0;
	const window = setInterval(() => {
		// What is recorded is the whole distance between two ticks, the resolution included.
		loopDelayP99Ms = Math.max(0, loopDelay.percentile(99) / 1e6 - LOOP_RESOLUTION_MS);
		loopDelay.reset();
	}, LOOP_WINDOW_MS);
	window.unref();
	metrics.gauge('turbocast_engine_ready', '1 while the engine is ready.', () => (parts.engine.state.kind === 'ready' ? 1 : 0));
	metrics.gauge('turbocast_places_free', 'Sessions that could start now.', () => parts.admission.free);
	metrics.gauge('turbocast_sessions_active', 'Sessions that have been started and not ended.', () => parts.admission.taken);
	metrics.gauge('turbocast_sessions_waiting', 'Sessions that wait for a place.', () => parts.admission.waiting);
	metrics.gauge('turbocast_connections', 'Open WebSocket connections.', parts.connections);
	metrics.gauge('turbocast_event_loop_delay_p99_ms', 'Delay of the main event loop in the last whole ten seconds.', () => loopDelayP99Ms);
	return {
		sessions: metrics.counter('turbocast_sessions_total', 'Sessions ended, by reason.'),
		errors: metrics.counter('turbocast_errors_total', 'Errors sent to clients, by code.'),
		chunks: metrics.counter('turbocast_chunks_total', 'Chunks generated.'),
		engineLosses: metrics.counter('turbocast_engine_losses_total', 'Times that a session lost its engine.'),
		frames: metrics.counter('turbocast_frames_total', 'Frames by what became of them: sent or dropped.'),
		generateMs: metrics.histogram('turbocast_chunk_generate_ms', 'From the start of a chunk to its end.', LATENCY_BOUNDS_MS),
		queueMs: metrics.histogram('turbocast_queue_wait_ms', 'From session.start to the place that it was given.', QUEUE_BOUNDS_MS),
		encodeMs: metrics.histogram('turbocast_encode_ms', 'Time of one frame inside the encoder.', [1, 2, 4, 8, 16, 32, 64]),
		changeMs: metrics.histogram('turbocast_change_to_frame_ms', 'From a change, the first prompt included, to the hand-over of the first frame that carries it.', LATENCY_BOUNDS_MS),
		close: () => {
			clearInterval(window);
			loopDelay.disable();
		},
	};
};
