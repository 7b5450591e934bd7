/**
 * Prompts as Wan cleans them before they are tokenised: `ftfy.fix_text`, HTML entities unescaped twice, white space collapsed. The
 * text repairs are ftfy 6's default ones, with two simplifications: text that was decoded wrongly (mojibake) is repaired only where a
 * whole line was, and entities in capitals that HTML does not know stay.
 */
import { decodeHTML } from 'entities';

/** What Windows-1252 shows for the bytes from 0x80 to 0x9f; Node 20's own decoder gives control characters there, as Latin-1 would. */
const WINDOWS_1252 = '€\u0081‚ƒ„…†‡ˆ‰Š‹Œ\u008dŽ\u008f\u0090‘’“”•–—˜™š›œ\u009džŸ';
const C1_START = 0x80;

/** Bytes by the character that Windows-1252 shows for them, control characters of Latin-1 included. */
const BYTES_BY_CHARACTER: ReadonlyMap<string, number> = new Map([
	...Array.from({ length: 256 }, (_, byte): [string, number] => [String.fromCharCode(byte), byte]),
	...[...WINDOWS_1252].map((character, index): [string, number] => [character, C1_START + index]),
]);

/** Ends when nothing changes; each round shortens the text, so that this many are never reached by accident. */
const MAX_ROUNDS = 100;

const LATIN_LIGATURES = /[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/gu;
const OTHER_WIDTHS = /[\u3000\uff01-\uffef]/gu;
const TERMINAL_ESCAPE = /\u001b\[[\d;]*[a-zA-Z]/gu;
/** Neither white space nor, beyond ASCII, anything that shapes glyphs. */
const CONTROLS = /[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;
const C1_CONTROLS = /[\u0080-\u009f]/gu;
const NAMED_ENTITY = /&#?[0-9A-Za-z]{1,24};/gu;

/** A line that is UTF-8 read as Windows-1252, read rightly; any other as it is. */
const repairMojibake = (line: string): string => {
	if (!/[^\u0000-\u007f]/u.test(line)) {
		return line;
	}
	const bytes = [...line].map((character) => BYTES_BY_CHARACTER.get(character));
	if (bytes.some((byte) => byte === undefined)) {
		return line;
	}
	try {
		return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes as number[]));
	} catch {
		return line;
	}
};

const repairOnce = (text: string, unescapes: boolean): string => (unescapes ? text.replace(NAMED_ENTITY, (entity) => decodeHTML(entity)) : text)
	.split(/(?<=\n)/u).map(repairMojibake).join('')
	.replace(C1_CONTROLS, (character) => WINDOWS_1252[character.charCodeAt(0) - C1_START] ?? character)
	.replace(LATIN_LIGATURES, (character) => (character === '\ufb05' ? '\u017ft' : character.normalize('NFKC')))
	.replace(OTHER_WIDTHS, (character) => character.normalize('NFKC'))
	.replace(/[\u201c-\u201f]/gu, '"').replace(/[\u02bc\u2018-\u201b]/gu, '\'')
	.replace(/\r\n|[\r\u2028\u2029\u0085]/gu, '\n')
	.toWellFormed()
	.replace(TERMINAL_ESCAPE, '')
	.replace(CONTROLS, '')
	.normalize('NFC');

/** Text with what programs did to it undone. */
export const repairText = (text: string): string => {
	// Where tags are, entities are theirs.
	const unescapes = !text.includes('<');
	let repaired = text;
	for (let round = 0; round < MAX_ROUNDS; round++) {
		const next = repairOnce(repaired, unescapes);
		if (next === repaired) {
			break;
		}
		repaired = next;
	}
	return repaired;
};

/** The prompt as it is given to the tokenizer. */
export const cleanPrompt = (text: string): string => decodeHTML(decodeHTML(repairText(text))).trim().replace(/\s+/gu, ' ').trim();
