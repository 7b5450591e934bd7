/** A transport without a network: viewers connect and vanish when a test says so, and keep what they were sent. */
import { EventEmitter, once } from 'node:events';
import type { EncodedChunk, VideoCodec } from '../../src/base/frame.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import type { FrameMeta } from '../../src/protocol/messages.js';
import type { IceCandidate, OfferedViewer, OutgoingOffer, RestartOffer, Transport, TransportCounts, ViewerOffer, ViewerState } from '../../src/transport/transport.js';

export class MemoryViewer implements OfferedViewer {
	readonly id: string;
	readonly codec: VideoCodec;
	/** Takes nothing, and then nothing until a key frame, as a real one. */
	isStuck = false;
	bandwidthBps: number | undefined;
	backlogMs = 0;
	#needsKeyframe = true;
	readonly chunks: EncodedChunk[] = [];
	readonly metas: FrameMeta[] = [];
	readonly restarts: string[] = [];
	readonly candidates: (IceCandidate | null)[] = [];
	readonly #events = new EventEmitter();
	#state: ViewerState = { kind: 'connecting' };

	readonly peer: string;

	constructor(id: string, codec: VideoCodec = 'h264', peer = '') {
		this.id = id;
		this.peer = peer;
		this.codec = codec;
	}

	get state(): ViewerState {
		return this.#state;
	}

	become(state: ViewerState): void {
		this.#needsKeyframe ||= state.kind !== 'connected';
		this.#state = state;
		this.#events.emit('state', state);
	}

	askForKeyframe(): void {
		this.#events.emit('keyframe');
	}

	onState(listener: (state: ViewerState) => void): () => void {
		this.#events.on('state', listener);
		return () => this.#events.off('state', listener);
	}

	onKeyframeNeeded(listener: () => void): () => void {
		this.#events.on('keyframe', listener);
		return () => this.#events.off('keyframe', listener);
	}

	send(chunk: EncodedChunk): 'sent' | 'dropped' {
		this.#needsKeyframe ||= this.isStuck;
		if (this.#state.kind !== 'connected' || this.isStuck || (this.#needsKeyframe && !chunk.isKeyframe)) {
			return 'dropped';
		}
		this.#needsKeyframe = false;
		this.chunks.push(chunk);
		this.#events.emit('chunk');
		return 'sent';
	}

	sendMeta(meta: FrameMeta): void {
		this.metas.push(meta);
	}

	addCandidate(candidate: IceCandidate | null): Promise<void> {
		this.candidates.push(candidate);
		return Promise.resolve();
	}

	/** Offers that say whose they are after the first line (`v=0 NAME`) can be told to be of one peer. */
	continues(offerSdp: string): boolean {
		return this.peer !== '' && offerSdp.slice(4) === this.peer && this.#state.kind !== 'closed';
	}

	restart(offerSdp: string): Promise<string> {
		this.restarts.push(offerSdp);
		return Promise.resolve('v=0 answer again');
	}

	renew(): Promise<RestartOffer> {
		this.become({ kind: 'disconnected' });
		return Promise.resolve({
			fragment: 'a=ice-ufrag:memory',
			answered: (fragment) => {
				this.restarts.push(fragment);
				this.become({ kind: 'connected' });
				return Promise.resolve();
			},
		});
	}

	close(reason: string): Promise<void> {
		if (this.#state.kind !== 'closed') {
			this.become({ kind: 'closed', reason });
		}
		return Promise.resolve();
	}

	/** Resolves when it has been sent that many access units. */
	async received(count: number): Promise<void> {
		while (this.chunks.length < count) {
			await once(this.#events, 'chunk');
		}
	}
}

/** Accepts any offer that begins like one. */
export class MemoryTransport implements Transport {
	readonly viewers: MemoryViewer[] = [];
	/** Viewers connect by themselves, as soon as their offer is answered. */
	connects = true;
	isClosed = false;

	/** An answer that begins like one makes a viewer. */
	offer(): Promise<OutgoingOffer> {
		return Promise.resolve({
			offerSdp: 'v=0 offer',
			answered: async (answerSdp) => (await this.#accept(answerSdp)).viewer,
			close: () => Promise.resolve(),
		});
	}

	accept(offerSdp: string): Promise<ViewerOffer> {
		return this.#accept(offerSdp);
	}

	#accept(offerSdp: string): Promise<ViewerOffer & { readonly viewer: MemoryViewer }> {
		if (!offerSdp.startsWith('v=0')) {
			return Promise.reject(new TurbocastError('invalid_sdp', 'The offer does not begin with v=0.', { param: 'sdp' }));
		}
		const viewer = new MemoryViewer(`viewer-${this.viewers.length}`, 'h264', offerSdp.slice(4));
		this.viewers.push(viewer);
		if (this.connects) {
			viewer.become({ kind: 'connected' });
		}
		return Promise.resolve({ viewer, answerSdp: 'v=0 answer' });
	}

	counts(): TransportCounts {
		return {
			connected: this.viewers.filter((viewer) => viewer.state.kind === 'connected').length,
			limited: this.viewers.filter(({ bandwidthBps }) => bandwidthBps !== undefined).length,
			sent: this.viewers.reduce((sum, viewer) => sum + viewer.chunks.length, 0), resent: 0, lost: 0,
		};
	}

	close(): Promise<void> {
		this.isClosed = true;
		return Promise.resolve();
	}
}
