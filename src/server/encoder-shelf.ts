/** The encoders of one session: one per codec and size, opened when first wanted and closed together. */
import type { EncoderOptions, Encoders, VideoEncoder } from '../media/encoder.js';
import { codecOf, isSmall, type EncodeName } from './encodes.js';

export class EncoderShelf {
	readonly #encoders: Encoders;
	readonly #options: Omit<EncoderOptions, 'codec' | 'halves'>;
	readonly #open = new Map<EncodeName, Promise<VideoEncoder>>();
	#closing: Promise<void> | undefined;

	constructor(encoders: Encoders, options: Omit<EncoderOptions, 'codec' | 'halves'>) {
		this.#encoders = encoders;
		this.#options = options;
	}

	/** Rejects with `encoder_failed`; the next call then tries again. */
	for(name: EncodeName): Promise<VideoEncoder> {
		const known = this.#open.get(name);
		if (known !== undefined) {
			return known;
		}
		const opening = this.#encoders.open({ ...this.#options, codec: codecOf(name), halves: isSmall(name) });
		this.#open.set(name, opening);
		opening.catch(() => this.#open.delete(name));
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
