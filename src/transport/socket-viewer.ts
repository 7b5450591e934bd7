/**
 * A viewer behind a WebSocket: for networks that let nothing but TCP through. TCP loses nothing, so what has to be bounded is delay. Buffers of
 * both kernels hide how much is under way, so the client acknowledges every frame, and while the oldest that it has not is too old, frames are
 * dropped up to a key frame. From a client that never acknowledged any, what the socket has not taken counts instead.
 */
import { randomUUID } from 'node:crypto';
import { codedFormatOf } from '../base/coded-format.js';
import type { EncodedChunk, VideoCodec } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import type { FrameMeta } from '../protocol/messages.js';
import { encodeVideoUnit } from '../protocol/video-unit.js';
import type { Viewer, ViewerState } from './transport.js';

/** The way to the client, shared with its messages. */
export type VideoSocket = {
	readonly sendBytes: (bytes: Uint8Array) => void;
	readonly sendMeta: (meta: FrameMeta) => void;
	/** Bytes that the socket has not handed to the system yet. */
	readonly unsentBytes: () => number;
};

/** A frame and its acknowledgement take a round trip; on a link of a second's delay nothing can be steered. */
export const MOST_BEHIND_MS = 600;
/** In this process, for one viewer: some key frames of the largest picture. */
export const MOST_UNSENT_BYTES = 256 * 1024;
/** At any frame rate there is, the limit of time strikes first. */
const MOST_UNACKNOWLEDGED = 256;
/** Later than usual by this: something waits on the way, so what arrives is all that the way carries. */
const CONGESTED_MS = 100;
/** What arrived within this is counted. */
const RATE_WINDOW_MS = 1000;
/** Below what arrives, so that what waits goes; and up again by so much with every frame that comes in time, some third in a second. */
const [DRAINING, GROWTH] = [0.85, 1.02];
/** No link of a single stream is known to be slower: then there is no limit. */
const UNLIMITED_BPS = 50_000_000;

export class SocketViewer implements Viewer {
	readonly id = randomUUID();
	readonly codec: VideoCodec;
	readonly #socket: VideoSocket;
	readonly #clock: Clock;
	/** Ids of frames that are under way and when they were sent, oldest first. */
	readonly #underway: { readonly frameId: number; readonly atMs: number; readonly bytes: number }[] = [];
	/** Of the last second. */
	#arrived: { readonly atMs: number; readonly bytes: number }[] = [];
	/** The shortest time between a frame and its acknowledgement. */
	#usualMs = Number.POSITIVE_INFINITY;
	#bandwidthBps: number | undefined;
	readonly #stateListeners = new Set<(state: ViewerState) => void>();
	readonly #keyframeListeners = new Set<() => void>();
	#acknowledges = false;
	#needsKeyframe = true;
	#state: ViewerState = { kind: 'connected' };

	constructor(codec: VideoCodec, socket: VideoSocket, clock: Clock) {
		this.codec = codec;
		this.#socket = socket;
		this.#clock = clock;
	}

	get state(): ViewerState {
		return this.#state;
	}

	get bandwidthBps(): number | undefined {
		return this.#bandwidthBps;
	}

	get backlogMs(): number {
		const [oldest] = this.#underway;
		return oldest === undefined || !this.#acknowledges ? 0 : Math.max(0, this.#clock.nowMs() - oldest.atMs - this.#usualMs);
	}

	onState(listener: (state: ViewerState) => void): () => void {
		this.#stateListeners.add(listener);
		return () => this.#stateListeners.delete(listener);
	}

	onKeyframeNeeded(listener: () => void): () => void {
		this.#keyframeListeners.add(listener);
		return () => this.#keyframeListeners.delete(listener);
	}

	/** The client has this frame, and so all before it. */
	acknowledged(frameId: number): void {
		this.#acknowledges = true;
		const index = this.#underway.findIndex((frame) => frame.frameId === frameId);
		const nowMs = this.#clock.nowMs();
		const arrived = this.#underway.splice(0, index + 1);
		const last = arrived.at(-1);
		if (last !== undefined) {
			this.#arrived = [...this.#arrived, ...arrived.map(({ bytes }) => ({ atMs: nowMs, bytes }))].filter(({ atMs }) => nowMs - atMs < RATE_WINDOW_MS);
			this.#usualMs = Math.min(this.#usualMs, nowMs - last.atMs);
			this.#measure(nowMs - last.atMs - this.#usualMs);
		}
	}

	/** The client's decoder lost the picture. */
	requestKeyframe(): void {
		this.#needsKeyframe = true;
		for (const listener of this.#keyframeListeners) {
			listener();
		}
	}

	send(chunk: EncodedChunk): 'sent' | 'dropped' {
		if (this.#state.kind !== 'connected') {
			return 'dropped';
		}
		this.#needsKeyframe ||= this.#isBehind();
		const format = chunk.isKeyframe ? codedFormatOf(chunk.codec, chunk.data) : undefined;
		if (this.#isBehind() || (this.#needsKeyframe && format === undefined)) {
			return 'dropped';
		}
		this.#needsKeyframe = false;
		this.#underway.push({ frameId: chunk.frameId >>> 0, atMs: this.#clock.nowMs(), bytes: chunk.data.byteLength });
		this.#socket.sendBytes(encodeVideoUnit({ frameId: chunk.frameId, rtpTimestamp: chunk.rtpTimestamp, format, data: chunk.data }));
		return 'sent';
	}

	sendMeta(meta: FrameMeta): void {
		if (this.#state.kind === 'connected') {
			this.#socket.sendMeta(meta);
		}
	}

	continues(): boolean {
		return false;
	}

	restart(): Promise<string> {
		return Promise.reject(new TurbocastError('invalid_state', 'Video over the control socket has no ICE to restart.'));
	}

	addCandidate(): Promise<void> {
		return Promise.reject(new TurbocastError('invalid_state', 'Video over the control socket has no candidates.'));
	}

	close(reason: string): Promise<void> {
		if (this.#state.kind !== 'closed') {
			this.#state = { kind: 'closed', reason };
			this.#underway.length = 0;
			for (const listener of this.#stateListeners) {
				listener(this.#state);
			}
		}
		return Promise.resolve();
	}

	#measure(lateMs: number): void {
		if (lateMs > CONGESTED_MS) {
			this.#bandwidthBps = (this.#arrived.reduce((sum, { bytes }) => sum + bytes, 0) * 8000 * DRAINING) / RATE_WINDOW_MS;
		} else if (this.#bandwidthBps !== undefined) {
			const grown = this.#bandwidthBps * GROWTH;
			this.#bandwidthBps = grown > UNLIMITED_BPS ? undefined : grown;
		}
	}

	#isBehind(): boolean {
		const unsent = this.#socket.unsentBytes();
		if (!this.#acknowledges && unsent === 0) {
			this.#underway.length = 0;
		}
		const [oldest] = this.#underway;
		return unsent > MOST_UNSENT_BYTES || this.#underway.length >= MOST_UNACKNOWLEDGED
			|| (oldest !== undefined && this.#clock.nowMs() - oldest.atMs > MOST_BEHIND_MS);
	}
}
