/**
 * Prompts to embeddings with a text encoder that is in memory only while it works: it is loaded for a prompt that is not in the cache
 * and let go right after.
 */
import type { TokenizedText, Tokenizer } from '../model/tokenizer.js';
import { TurbocastError } from '../protocol/errors.js';
import type { GraphSession } from './backend.js';
import type { EmbeddingCache } from './embedding-cache.js';

export type TextEmbedding = {
	/** [text_len, dim]; rows of padding are zero. */
	readonly context: Float32Array;
	/** [text_len]; 1 for a token, 0 for padding. */
	readonly mask: Float32Array;
	readonly isTruncated: boolean;
};

/** An encoder in memory. Closed by whoever loaded it. */
export type LoadedTextEncoder = {
	/** [text_len, dim]; rows of padding may hold anything. */
	readonly encode: (tokens: TokenizedText) => Promise<Float32Array>;
	readonly close: () => Promise<void>;
};

export type TextEmbedderOptions = {
	readonly tokenizer: Tokenizer;
	readonly textLength: number;
	readonly dim: number;
	/** Tells encoders apart in the cache: a hash of the weights. */
	readonly encoderId: string;
	readonly load: (signal: AbortSignal) => Promise<LoadedTextEncoder>;
	readonly cache?: EmbeddingCache | undefined;
};

export type TextEmbedder = {
	/** Prompts of one call share one loading of the encoder. Not for concurrent use. Throws what loading and encoding throw. */
	readonly embed: (prompts: readonly string[], signal: AbortSignal) => Promise<TextEmbedding[]>;
};

const maskOf = ({ mask }: TokenizedText): number => mask.reduce((sum, value) => sum + value, 0);

/** Runs a loaded umT5 encoder (`text-encoder.ts`): [text_len, dim]. */
export const encodeUmt5 = async (session: GraphSession, { ids, mask }: TokenizedText): Promise<Float32Array> => {
	const { context } = await session.run({
		ids: { type: 'int64', dims: [1, ids.length], data: BigInt64Array.from(ids, (id) => BigInt(id)) },
		mask: { type: 'float32', dims: [1, mask.length], data: Float32Array.from(mask) },
	});
	return context?.data as Float32Array;
};

export const createTextEmbedder = ({ tokenizer, textLength, dim, encoderId, load, cache }: TextEmbedderOptions): TextEmbedder => {
	const keyOf = (tokens: TokenizedText) => ({ encoderId, dim, ids: tokens.ids.slice(0, maskOf(tokens)) });
	/** Rows of the tokens alone. */
	const rowsOf = async (encoder: LoadedTextEncoder, tokens: TokenizedText): Promise<Float32Array> => {
		const rows = (await encoder.encode(tokens)).slice(0, maskOf(tokens) * dim);
		if (rows.length !== maskOf(tokens) * dim || !rows.every(Number.isFinite)) {
			throw new TurbocastError('generation_invalid', 'The text encoder produced numbers that are no embedding; its weights may be damaged.');
		}
		await cache?.write(keyOf(tokens), rows);
		return rows;
	};
	return {
		embed: async (prompts, signal) => {
			const texts = prompts.map((prompt) => tokenizer.tokenize(prompt));
			const found = await Promise.all(texts.map(async (tokens) => cache?.read(keyOf(tokens))));
			signal.throwIfAborted();
			if (found.includes(undefined)) {
				const encoder = await load(signal);
				try {
					for (const [index, tokens] of texts.entries()) {
						signal.throwIfAborted();
						found[index] ??= await rowsOf(encoder, tokens);
					}
				} finally {
					await encoder.close();
				}
			}
			return texts.map((tokens, index) => {
				const context = new Float32Array(textLength * dim);
				context.set(found[index] ?? []);
				return { context, mask: Float32Array.from(tokens.mask), isTruncated: tokens.isTruncated };
			});
		},
	};
};
