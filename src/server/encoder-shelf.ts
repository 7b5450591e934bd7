/** The encoders of one session: one per codec, opened when first wanted and closed together. */
import type { VideoCodec } from '../base/frame.js';
import type { EncoderOptions, Encoders, VideoEncoder } from '../media/encoder.js';

export class EncoderShelf {
	readonly #encoders: Encoders;
	readonly #options: Omit<EncoderOptions, 'codec'>;
	readonly #open = new Map<VideoCodec, Promise<VideoEncoder>>();
	#closing: Promise<void> | undefined;

	constructor(encoders: Encoders, options: Omit<EncoderOptions, 'codec'>) {
		this.#encoders = encoders;
		this.#options = options;
	}

	/** Rejects with `encoder_failed`; the next call then tries again. */
	for(codec: VideoCodec): Promise<VideoEncoder> {
		const known = this.#open.get(codec);
		if (known !== undefined) {
			return known;
		}
		const opening = this.#encoders.open({ ...this.#options, codec });
		this.#open.set(codec, opening);
		opening.catch(() => this.#open.delete(codec));
		return opening;
	}

	/** Idempotent. */
	close(): Promise<void> {
		this.#closing ??= Promise.all([...this.#open.values()].map(async (opening) => {
			const encoder = await opening.catch(() => undefined);
			await encoder?.close();
		})).then(() => undefined);
		return this.#closing;
	}
}
