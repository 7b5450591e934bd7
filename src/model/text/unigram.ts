/**
 * Text to the ids of a SentencePiece unigram model: the text is normalised, then split into the pieces whose scores add up highest
 * (Kudo 2018, "Subword Regularization", section 3.2; the sums in float32 as the original has them, so that ties fall the same way).
 */
import { parseCharsMap } from './chars-map.js';
import type { SentencePieceModel } from './sentencepiece-model.js';

/** Stands for a space. */
const SPACE = '▁';
/** How much worse than the worst piece a character without one is. */
const UNKNOWN_PENALTY = 10;
/** A symbol that the model's user defined beats every split of it. */
const USER_SYMBOL_MALUS = 0.1;

export type Unigram = {
	/** The text as it is looked up, spaces as `▁`. */
	readonly normalize: (text: string) => string;
	/** Ids without an end. */
	readonly encode: (text: string) => number[];
};

const createNormalizer = (label: string, model: SentencePieceModel, userSymbols: readonly string[]): ((text: string) => string) => {
	const replace = parseCharsMap(label, model.charsMap);
	const [encoder, decoder] = [new TextEncoder(), new TextDecoder('utf-8', { ignoreBOM: true })];
	const symbols = userSymbols.map((symbol) => encoder.encode(symbol));
	/** The next piece of text as it shall be, and what remains. */
	const next = (bytes: Uint8Array, at: number): { text: string; length: number } => {
		const symbol = symbols.find((each) => each.every((byte, index) => bytes[at + index] === byte));
		const { bytes: replacement, length } = symbol === undefined ? replace(bytes, at) : { bytes: symbol, length: symbol.length };
		return { text: decoder.decode(replacement), length };
	};
	return (text) => {
		const bytes = encoder.encode(text);
		let out = model.hasDummyPrefix ? SPACE : '';
		const start = out;
		let isAfterSpace = model.collapsesSpaces;
		for (let at = 0; at < bytes.length;) {
			const { text: part, length } = next(bytes, at);
			const kept = isAfterSpace ? part.replace(/^ +/u, '') : part;
			out += kept.replaceAll(' ', SPACE);
			isAfterSpace = model.collapsesSpaces && (kept === '' ? isAfterSpace : kept.endsWith(' '));
			at += length;
		}
		const ended = model.collapsesSpaces ? out.replace(/▁+$/u, '') : out;
		return ended === '' || ended === start ? '' : ended;
	};
};

export const createUnigram = (label: string, model: SentencePieceModel): Unigram => {
	const { pieces } = model;
	const ids = new Map(pieces.flatMap(({ text, kind }, id): [string, number][] => (kind === 'normal' || kind === 'user' ? [[text, id]] : [])));
	const bytePieces = new Map(pieces.flatMap(({ text, kind }, id): [number, number][] => (kind === 'byte' ? [[Number.parseInt(text.slice(3, 5), 16), id]] : [])));
	let [longest, best, worst] = [1, -Infinity, Infinity];
	for (const { text, score, kind } of pieces) {
		longest = kind === 'normal' || kind === 'user' ? Math.max(longest, [...text].length) : longest;
		best = kind === 'normal' ? Math.max(best, score) : best;
		worst = kind === 'normal' ? Math.min(worst, score) : worst;
	}
	const unknownScore = Math.fround(worst - UNKNOWN_PENALTY);
	// The longest first: one may be the beginning of another.
	const userSymbols = pieces.filter(({ kind }) => kind === 'user').map(({ text }) => text).sort((a, b) => b.length - a.length);
	const normalize = createNormalizer(label, model, userSymbols);
	const encoder = new TextEncoder();

	const scoreOf = (id: number, text: string): number => {
		const { score, kind } = pieces[id] ?? { score: unknownScore, kind: 'normal' };
		return kind === 'user' ? encoder.encode(text).length * best - USER_SYMBOL_MALUS : score;
	};

	/** The best split: for each character the start and the id of the piece that ends before it. */
	const search = (characters: readonly string[]): { starts: Int32Array; ends: Int32Array } => {
		const scores = new Float32Array(characters.length + 1);
		const starts = new Int32Array(characters.length + 1).fill(-1);
		const ends = new Int32Array(characters.length + 1);
		const offer = (start: number, end: number, id: number, score: number): void => {
			const total = score + (scores[start] ?? 0);
			if (starts[end] === -1 || total > (scores[end] ?? 0)) {
				scores[end] = total;
				starts[end] = start;
				ends[end] = id;
			}
		};
		for (let start = 0; start < characters.length; start++) {
			let text = '';
			let hasSingle = false;
			for (let end = start + 1; end <= Math.min(characters.length, start + longest); end++) {
				text += characters[end - 1] ?? '';
				const id = ids.get(text);
				if (id !== undefined) {
					offer(start, end, id, scoreOf(id, text));
					hasSingle ||= end === start + 1;
				}
			}
			if (!hasSingle) {
				offer(start, start + 1, model.unknown, unknownScore);
			}
		}
		return { starts, ends };
	};

	const encode = (text: string): number[] => {
		const characters = [...normalize(text)];
		const { starts, ends } = search(characters);
		const parts: { start: number; end: number; id: number }[] = [];
		for (let end = characters.length; end > 0; end = starts[end] ?? 0) {
			parts.push({ start: starts[end] ?? 0, end, id: ends[end] ?? 0 });
		}
		const found: number[] = [];
		for (const { start, end, id } of parts.reverse()) {
			if (id !== model.unknown) {
				found.push(id);
			} else if (model.hasByteFallback) {
				found.push(...[...encoder.encode(characters.slice(start, end).join(''))].map((byte) => bytePieces.get(byte) ?? model.unknown));
			} else if (found.at(-1) !== model.unknown) {
				found.push(id); // Unknown characters in a row are one.
			}
		}
		return found;
	};
	return { normalize, encode };
};
