/** The video of one connection over its own control socket: opened, acknowledged and closed by its messages. */
import { VIDEO_CODECS, type VideoCodec } from '../base/frame.js';
import type { Clock } from '../base/time.js';
import { TurbocastError } from '../protocol/errors.js';
import { SocketViewer, type VideoSocket } from '../transport/socket-viewer.js';
import type { Viewer } from '../transport/transport.js';
import type { ViewerSlotEvents } from './viewer-slot.js';

export class SocketSlot {
	readonly #socket: VideoSocket;
	readonly #clock: Clock;
	readonly #events: ViewerSlotEvents;
	#viewer: SocketViewer | undefined;
	#isClosed = false;
	#wasOpened = false;

	constructor(socket: VideoSocket, clock: Clock, events: ViewerSlotEvents) {
		this.#socket = socket;
		this.#clock = clock;
		this.#events = events;
	}

	get wasOpened(): boolean {
		return this.#wasOpened;
	}

	get watching(): Viewer | undefined {
		return this.#viewer;
	}

	/** From the next key frame on; what was open before is closed. `codecs`: what the client decodes, what it likes best first. */
	open(codecs: readonly VideoCodec[]): VideoCodec {
		const codec = codecs.find((wanted) => VIDEO_CODECS.includes(wanted));
		if (this.#isClosed || codec === undefined) {
			throw new TurbocastError('invalid_state', 'The session has ended.');
		}
		void this.#viewer?.close('opened again');
		const viewer = new SocketViewer(codec, this.#socket, this.#clock);
		this.#viewer = viewer;
		this.#wasOpened = true;
		viewer.onKeyframeNeeded(() => this.#events.onKeyframeNeeded(viewer));
		this.#events.onWatching(viewer);
		return codec;
	}

	/** Word of a frame that was sent before the video was closed may still come. */
	acknowledged(frameId: number): void {
		this.#viewer?.acknowledged(frameId);
	}

	requestKeyframe(): void {
		this.#viewer?.requestKeyframe();
	}

	/** By the client's wish: it may be opened again. */
	async stop(reason: string): Promise<void> {
		const viewer = this.#viewer;
		this.#viewer = undefined;
		await viewer?.close(reason);
		if (viewer !== undefined) {
			this.#events.onWatching(undefined);
		}
	}

	/** For good; idempotent. */
	async close(reason: string): Promise<void> {
		this.#isClosed = true;
		await this.stop(reason);
	}
}
