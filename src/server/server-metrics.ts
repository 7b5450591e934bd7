/** What the server counts; read at `/metrics`, explained in docs/operations.md (a test holds the two together). */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Metrics } from '../base/metrics.js';
import type { Engine } from '../engine/engine.js';
import type { ChunkTimings } from '../engine/protocol.js';
import type { Transport } from '../transport/transport.js';
import type { Admission } from './admission.js';
import { PUBLICATION_STATES } from '../protocol/publications.js';
import { SESSION_STATES } from './session-state.js';

const LOOP_RESOLUTION_MS = 10;
const LOOP_WINDOW_MS = 10_000;
const LATENCY_BOUNDS_MS = [50, 100, 200, 300, 400, 500, 650, 800, 1000, 1500, 2500, 5000];
const STAGE_BOUNDS_MS = [2, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120];
const LEAD_BOUNDS_MS = [-500, -100, 0, 50, 100, 200, 300, 400, 500, 750, 1000, 2000, 5000];
const QUEUE_BOUNDS_MS = [10, 100, 1000, 5000, 15_000, 60_000, 300_000];
const BITRATE_BOUNDS_KBPS = [80, 150, 300, 500, 800, 1200, 2000, 3000, 5000, 10_000];
const ENCODE_BOUNDS_MS = [1, 2, 4, 8, 16, 32, 64, 128];

/** What is counted of a chunk. */
export type ChunkCount = { readonly timings: ChunkTimings; readonly generateMs: number; readonly leadMs: number; readonly deadlineMissed: boolean };

export type ServerMetrics = ReturnType<typeof createServerMetrics>;

export type MetricSources = {
	/** Of turbocast. */
	readonly version: string;
	readonly engine: Engine;
	readonly admission: Admission;
	readonly transport: Transport;
	readonly connections: () => number;
	/** States of the sessions of all connections. */
	readonly sessionStates: () => readonly string[];
	/** States of the publications that are not over. */
	readonly publicationStates: () => readonly string[];
};

export const createServerMetrics = (metrics: Metrics, { version, engine, admission, transport, connections, sessionStates, publicationStates }: MetricSources) => {
	const loopDelay = monitorEventLoopDelay({ resolution: LOOP_RESOLUTION_MS });
	loopDelay.enable();
	let loopDelayP99Ms = 0;
	const window = setInterval(() => {
		// What is recorded is the whole distance between two ticks, the resolution included.
		loopDelayP99Ms = Math.max(0, loopDelay.percentile(99) / 1e6 - LOOP_RESOLUTION_MS);
		loopDelay.reset();
	}, LOOP_WINDOW_MS);
	window.unref();

	metrics.gauge('turbocast_build_info', 'Always 1; the labels say what runs.', () => [{ labels: { version, model: engine.model.name, node: process.versions.node }, value: 1 }]);
	metrics.gauge('turbocast_engine_ready', '1 while the engine is ready.', () => (engine.state.kind === 'ready' ? 1 : 0));
	const restarts = metrics.counter('turbocast_engine_restarts_total', 'Times that the engine process was lost and started again.');
	restarts.add(0);
	const stopListening = engine.onState((state) => restarts.add(state.kind === 'restarting' ? 1 : 0));
	metrics.gauge('turbocast_engine_share', 'Share of real time that the sessions that run take of the engine, as measured.', () => admission.share);
	metrics.gauge('turbocast_places', 'Sessions that may run at once.', () => admission.places);
	metrics.gauge('turbocast_places_free', 'Sessions that could start now.', () => admission.free);
	metrics.gauge('turbocast_draining', '1 during a shutdown.', () => (admission.isDraining ? 1 : 0));
	metrics.gauge('turbocast_sessions', 'Sessions, by state.', () => {
		const counts = new Map<string, number>(SESSION_STATES.map((state) => [state, 0]));
		for (const state of sessionStates()) {
			counts.set(state, (counts.get(state) ?? 0) + 1);
		}
		return [...counts].map(([state, value]) => ({ labels: { state }, value }));
	});
	metrics.gauge('turbocast_sessions_active', 'Sessions that have been started and not ended.', () => admission.taken);
	metrics.gauge('turbocast_sessions_waiting', 'Sessions that wait for a place.', () => admission.waiting);
	metrics.gauge('turbocast_connections', 'Open WebSocket connections.', connections);
	metrics.gauge('turbocast_viewers', 'Peer connections that are connected.', () => transport.counts().connected);
	metrics.gauge('turbocast_viewers_limited', 'Viewers whose network carries less than the highest bitrate.', () => transport.counts().limited);
	metrics.gauge('turbocast_publications', 'Sessions that are sent to WHIP endpoints, by state.', () => {
		const states = publicationStates();
		return PUBLICATION_STATES.filter((state) => state !== 'ended').map((state) => ({ labels: { state }, value: states.filter((each) => each === state).length }));
	});
	metrics.counterOf('turbocast_rtp_packets_total', 'Video packets: sent at first, sent again on request, reported lost by receivers.', () => {
		const { sent, resent, lost } = transport.counts();
		return [{ labels: { kind: 'sent' }, value: sent }, { labels: { kind: 'resent' }, value: resent }, { labels: { kind: 'lost' }, value: lost }];
	});
	metrics.gauge('turbocast_event_loop_delay_p99_ms', 'Delay of the main event loop in the last whole ten seconds.', () => loopDelayP99Ms);
	metrics.gauge('process_resident_memory_bytes', 'Resident memory of the main process.', () => process.memoryUsage.rss());
	metrics.counterOf('process_cpu_seconds_total', 'Processor time of the main process.', () => {
		const { user, system } = process.cpuUsage();
		return (user + system) / 1e6;
	});

	const publishAttempts = metrics.counter('turbocast_publish_attempts_total', 'Offers to WHIP endpoints, by outcome.');
	for (const outcome of ['answered', 'refused', 'failed'] as const) {
		publishAttempts.add(0, { outcome });
	}
	const chunks = metrics.counter('turbocast_chunks_total', 'Chunks generated, by whether the picture went on meanwhile.');
	const generateMs = metrics.histogram('turbocast_chunk_generate_ms', 'From the start of a chunk to its end.', LATENCY_BOUNDS_MS);
	const stageMs = metrics.histogram('turbocast_chunk_stage_ms', 'Where the time of a chunk went.', STAGE_BOUNDS_MS);
	const leadMs = metrics.histogram('turbocast_lead_ms', 'How far generation was ahead of display at the end of a chunk.', LEAD_BOUNDS_MS);
	return {
		sessions: metrics.counter('turbocast_sessions_total', 'Sessions ended, by reason.'),
		errors: metrics.counter('turbocast_errors_total', 'Errors sent to clients, by code.'),
		engineLosses: metrics.counter('turbocast_engine_losses_total', 'Times that a session lost its engine.'),
		frames: metrics.counter('turbocast_frames_total', 'Frames by what became of them: sent, dropped or skipped, for each viewer; unseen or lost, for all.'),
		publishAttempts,
		queueMs: metrics.histogram('turbocast_queue_wait_ms', 'From session.start to the place that it was given.', QUEUE_BOUNDS_MS),
		encodeMs: metrics.histogram('turbocast_encode_ms', 'Time of one frame inside the encoder.', ENCODE_BOUNDS_MS),
		bitrateKbps: metrics.histogram('turbocast_bitrate_kbps', 'Bitrate in force for each frame that was sent.', BITRATE_BOUNDS_KBPS),
		changeMs: metrics.histogram('turbocast_change_to_frame_ms', 'From a change, the first prompt included, to the hand-over of the first frame that carries it.', LATENCY_BOUNDS_MS),
		chunkCompleted: (chunk: ChunkCount): void => {
			chunks.add(1, { deadline: chunk.deadlineMissed ? 'missed' : 'met' });
			generateMs.observe(chunk.generateMs);
			leadMs.observe(chunk.leadMs);
			for (const [stage, ms] of [
				['queue', chunk.timings.queueMs], ['text', chunk.timings.textMs], ['denoise', chunk.timings.denoiseMs], ['clean', chunk.timings.cleanMs], ['decode', chunk.timings.decodeMs],
			] as const) {
				stageMs.observe(ms, { stage });
			}
		},
		close: () => {
			clearInterval(window);
			loopDelay.disable();
			stopListening();
		},
	};
};
