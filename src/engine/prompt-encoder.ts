/** Prompt to tensors, with a memory: a prompt that stays costs nothing, and one that was prepared is there when it is used. */
import type { Networks, PromptTensors } from './networks.js';
import { mixPrompts } from './prompt-mix.js';
import type { Prompt } from './protocol.js';

/**
 * Bytes of encoded prompts kept. The small embedded model takes about 0.5 MB a prompt, so everybody's last few are there;
 * a large one keeps only the latest, which is always kept.
 */
export const MAX_CACHED_BYTES = 32 * 1024 * 1024;

const bytesOf = (tensors: PromptTensors): number =>
	[tensors.context, tensors.mask, ...tensors.crossK, ...tensors.crossV, ...(tensors.pooled === undefined ? [] : [tensors.pooled])]
		.reduce((sum, array) => sum + array.byteLength, 0);

export class PromptEncoder {
	readonly #encode: Networks['encodePrompt'];
	readonly #heads: number;
	readonly #maxBytes: number;
	/** By text, least recently used first (a Map keeps the order of insertion). */
	readonly #cache = new Map<string, PromptTensors>();
	#bytes = 0;

	constructor(networks: Pick<Networks, 'encodePrompt'> & { readonly spec: { readonly dit: { readonly num_heads: number } } }, maxBytes = MAX_CACHED_BYTES) {
		this.#encode = (text) => networks.encodePrompt(text);
		this.#heads = networks.spec.dit.num_heads;
		this.#maxBytes = maxBytes;
	}

	/** Whether the networks need not run for it. */
	isKnown(prompt: Prompt): boolean {
		return (typeof prompt === 'string' ? [{ text: prompt }] : prompt).every(({ text }) => this.#cache.has(text));
	}

	/** The texts of a mixture are remembered, the mixture itself is not. Not for concurrent use, as the networks themselves. */
	async encode(prompt: Prompt): Promise<PromptTensors> {
		if (typeof prompt === 'string') {
			return this.#encodeText(prompt);
		}
		const parts: { tensors: PromptTensors; weight: number }[] = [];
		for (const { text, weight } of prompt) {
			parts.push({ tensors: await this.#encodeText(text), weight });
		}
		return mixPrompts(parts, this.#heads);
	}

	async #encodeText(text: string): Promise<PromptTensors> {
		const known = this.#cache.get(text);
		if (known !== undefined) {
			this.#cache.delete(text);
			this.#cache.set(text, known);
			return known;
		}
		const tensors = await this.#encode(text);
		this.#cache.set(text, tensors);
		this.#bytes += bytesOf(tensors);
		for (const [oldest, evicted] of this.#cache) {
			if (this.#bytes <= this.#maxBytes || this.#cache.size === 1) {
				break;
			}
			this.#cache.delete(oldest);
			this.#bytes -= bytesOf(evicted);
		}
		return tensors;
	}
}
