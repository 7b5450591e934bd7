/** The session that the scripted server pretends to generate: right answers at a steady pace, over as many connections as it takes. No frame is ever sent. */
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_MESSAGE_BYTES, MAX_PROMPT_LENGTH, MAX_PROMPTS, PROTOCOL_VERSION, TRANSITION_MODES } from '../protocol/limits.js';
import { errorMessage, type ClientMessage, type ServerMessages } from '../protocol/messages.js';
import type { Transport, Viewer } from '../transport/transport.js';
import type { ClientConnection } from './client-connection.js';

const FPS = 16;
const FRAMES_PER_CHUNK = 8;
const CHUNK_MS = (FRAMES_PER_CHUNK * 1000) / FPS;
export const RESUME_GRACE_MS = 15_000;
const MAX_LEAD_MS = 1000;
const AN_HOUR_MS = 3_600_000;
const SESSION_ID = 'scripted';

const NO_TIMINGS = { queue_ms: 0, text_ms: 0, recache_ms: 0, denoise_ms: 0, clean_ms: 0, decode_ms: 0 } as const;

/** The token that `session.created` names, and the one that `session.ready` has instead. */
export const FIRST_TOKEN = 'rt_of_the_greeting';
export const TOKEN = 'rt_of_the_place';

export class ScriptedSession {
	readonly #transport: Pick<Transport, 'accept'>;
	#connection: ClientConnection | undefined;
	#timer: ReturnType<typeof setInterval> | undefined;
	readonly #viewers: Viewer[] = [];
	#isPaused = false;
	#seed = 1;
	#chunkIndex = 0;
	#unapplied: (string | undefined)[] = [];

	constructor(transport: Pick<Transport, 'accept'>) {
		this.#transport = transport;
	}

	/** Greets, and answers from now on. */
	greet(connection: ClientConnection): void {
		this.#connection = connection;
		connection.onMessage = (message) => this.#answer(message, connection);
		connection.send({
			type: 'session.created', session_id: SESSION_ID, protocol_version: PROTOCOL_VERSION, ice_servers: [], resume_token: FIRST_TOKEN,
			model: {
				id: 'scripted', title: 'Answers that a script gives', width: 128, height: 128, fps: FPS, frames_per_chunk: FRAMES_PER_CHUNK, steps: [1, 2, 4], default_steps: 2,
				controls: [{ name: 'steer_x', label: 'Steer', min: -1, max: 1, default: 0 }], examples: ['a cat jumps'], transitions: [...TRANSITION_MODES],
			},
			limits: {
				max_message_bytes: MAX_MESSAGE_BYTES, max_prompt_length: MAX_PROMPT_LENGTH, max_prompts: MAX_PROMPTS, max_session_ms: AN_HOUR_MS, idle_timeout_ms: AN_HOUR_MS,
				start_timeout_ms: AN_HOUR_MS, resume_grace_ms: RESUME_GRACE_MS, max_lead_ms: MAX_LEAD_MS,
			},
		});
	}

	/** Idempotent. */
	async close(): Promise<void> {
		clearInterval(this.#timer);
		await Promise.all(this.#viewers.map((viewer) => viewer.close('the script has ended')));
	}

	get ended(): ServerMessages['session.ended'] {
		const frames = this.#chunkIndex * FRAMES_PER_CHUNK;
		return { type: 'session.ended', session_id: SESSION_ID, reason: 'stopped', generated_ms: (frames * 1000) / FPS, frames };
	}

	#answer(message: ClientMessage, connection: ClientConnection): void {
		const { event_id: eventId } = message;
		const named = eventId === undefined ? {} : { event_id: eventId };
		switch (message.type) {
			case 'session.start':
				this.#started(message, connection);
				return;
			case 'session.update':
			case 'input.action':
			case 'session.reset':
				this.#accept(eventId, connection);
				return;
			case 'session.pause':
			case 'session.resume':
				this.#isPaused = message.type === 'session.pause';
				connection.send({ type: this.#isPaused ? 'session.paused' : 'session.resumed', ...named, frame_id: this.#chunkIndex * FRAMES_PER_CHUNK, media_ms: this.#chunkIndex * CHUNK_MS });
				return;
			case 'webrtc.offer':
				this.#transport.accept(message.sdp).then(({ viewer, answerSdp }) => {
					this.#viewers.push(viewer);
					connection.send({ type: 'webrtc.answer', ...named, sdp: answerSdp });
				}, (error: unknown) => connection.send(errorMessage(TurbocastError.from(error), eventId)));
				return;
			case 'video.ack':
			case 'video.keyframe':
			case 'video.close':
				return;
			case 'webrtc.candidate':
				this.#viewers.at(-1)?.addCandidate(message.candidate).catch(() => undefined);
				return;
			case 'ping':
				connection.send({ type: 'pong', ...named, ...(message.ts_ms === undefined ? {} : { ts_ms: message.ts_ms }), server_ms: performance.now() });
				return;
			case 'session.stop':
				connection.send(this.ended);
				connection.close(1000, 'stopped');
				return;
			case 'video.open':
			case 'session.fork':
			case 'session.share':
			case 'control.request':
			case 'control.grant':
			case 'control.release':
				connection.send(errorMessage(new TurbocastError('not_supported', 'The script has one session with one member.'), eventId));
				return;
			default:
				assertNever(message);
		}
	}

	#started({ event_id: eventId, resume_token: token, prompt, prompts, seed }: ClientMessage & { type: 'session.start' }, connection: ClientConnection): void {
		const resumed = this.#timer !== undefined && token !== undefined;
		this.#seed = resumed ? this.#seed : (seed ?? this.#seed);
		this.#accept(eventId, connection);
		connection.send({
			type: 'session.ready', session_id: SESSION_ID, model: 'scripted', seed: this.#seed, steps: 2, width: 128, height: 128, cold_start_ms: 0, resume_token: TOKEN, resumed,
			is_paused: this.#isPaused, prompts: prompts ?? [{ text: prompt ?? 'a cat jumps', weight: 1 }], controls: {}, max_lead_ms: MAX_LEAD_MS, expires_in_ms: AN_HOUR_MS,
		});
		if (!resumed) {
			connection.send({ type: 'generation.started', chunk_index: 0, seed: this.#seed, media_ms: 0, history: 'new' });
		}
		this.#timer ??= setInterval(() => this.#makeChunk(), CHUNK_MS);
	}

	#accept(eventId: string | undefined, connection: ClientConnection): void {
		this.#unapplied.push(eventId);
		connection.send({ type: 'event.accepted', ...(eventId === undefined ? {} : { event_id: eventId }), will_apply_at_chunk: this.#chunkIndex, will_apply_at_media_ms: this.#chunkIndex * CHUNK_MS, unknown_words: [] });
	}

	#makeChunk(): void {
		if (this.#isPaused) {
			return;
		}
		const index = this.#chunkIndex;
		const frameId = index * FRAMES_PER_CHUNK;
		const nowMs = performance.now();
		for (const eventId of this.#unapplied.splice(0)) {
			this.#connection?.send({
				type: 'event.applied', ...(eventId === undefined ? {} : { event_id: eventId }), chunk_index: index, frame_id: frameId, rtp_timestamp: (frameId * 90_000) / FPS, media_ms: index * CHUNK_MS,
				server_latency_ms: 0, timings: { wait_ms: 0, generate_ms: 0, hold_ms: 0, encode_ms: 0 },
			});
		}
		this.#connection?.send({
			type: 'chunk.completed', chunk_index: index, frames: FRAMES_PER_CHUNK, first_frame_id: frameId, media_ms: index * CHUNK_MS, steps: 2, seed: this.#seed, timings: NO_TIMINGS,
			t_started_ms: nowMs, t_completed_ms: nowMs, lead_ms: 0, fps: FPS, deadline_missed: false,
		});
		this.#chunkIndex += 1;
	}
}
