/** What several forwards are told alike. On a device it is brought there once, and stays until something else takes its place. */
import type { DeviceBackend, Feeds, ResidentTensor } from './backend.js';

export type HeldArrays = { readonly [name: string]: { readonly dims: readonly number[]; readonly data: Float32Array } };

/** Of one kind, the latest. Not for concurrent use. Closed by whoever made it. */
export class HeldFeeds<Key> {
	readonly #device: DeviceBackend | undefined;
	#held: { readonly key: Key; readonly feeds: Feeds; readonly resident: readonly ResidentTensor[] } | undefined;

	/** Without a device they are tensors of ours. */
	constructor(device: DeviceBackend | undefined) {
		this.#device = device;
	}

	/** `make` is asked where `key` is not that of the last time. */
	async of(key: Key, make: () => HeldArrays): Promise<Feeds> {
		if (this.#held?.key === key) {
			return this.#held.feeds;
		}
		this.close();
		const feeds: Record<string, Feeds[string]> = {};
		const resident: ResidentTensor[] = [];
		try {
			for (const [name, { dims, data }] of Object.entries(make())) {
				if (this.#device === undefined) {
					feeds[name] = { type: 'float32', dims, data };
				} else {
					const tensor = await this.#device.upload(data, dims);
					resident.push(tensor);
					feeds[name] = tensor;
				}
			}
		} catch (error) {
			resident.forEach((tensor) => tensor.close());
			throw error;
		}
		this.#held = { key, feeds, resident };
		return feeds;
	}

	/** Nothing is held then. Idempotent. */
	close(): void {
		this.#held?.resident.forEach((tensor) => tensor.close());
		this.#held = undefined;
	}
}
