/** Text to token ids (docs/model-format.md, section on the tokenizer). */

export type TokenizedText = {
	/** [text_len], `</s>` after the last word, then `<pad>`. */
	readonly ids: readonly number[];
	/** [text_len]; 1 for a token (`</s>` included), 0 for padding. */
	readonly mask: readonly number[];
	/** Words without an id, as written, each once, in order. */
	readonly unknownWords: readonly string[];
	/** Whether words at the end were left out. */
	readonly isTruncated: boolean;
};

export type Tokenizer = { readonly tokenize: (text: string) => TokenizedText };
