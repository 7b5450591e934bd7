/** What a player tells of its ICE session after the offer: fragments of a session description (RFC 8840 section 9). */
import { TurbocastError } from '../protocol/errors.js';
import { MAX_CANDIDATES } from './offer.js';

export type SdpFragment = {
	/** `undefined` when the fragment names no ICE session. */
	readonly usernameFragment: string | undefined;
	readonly password: string | undefined;
	/** As in `a=`, without that. */
	readonly candidates: readonly string[];
	/** Of the section that the candidates are of. */
	readonly mid: string | undefined;
	readonly isEnd: boolean;
};

const refuse = (sentence: string): never => {
	throw new TurbocastError('invalid_sdp', sentence);
};

const valueOf = (lines: readonly string[], name: string): string | undefined => lines.find((line) => line.startsWith(`a=${name}:`))?.slice(3 + name.length);

/** Throws `invalid_sdp`. */
export const readFragment = (text: string): SdpFragment => {
	const lines = text.split(/\r\n|\r|\n/u).filter((line) => line !== '');
	if (lines.length === 0 || !lines.every((line) => /^[am]=/u.test(line))) {
		refuse('The fragment is not one of a session description (RFC 8840): it has lines other than a= and m=, or none.');
	}
	const usernameFragment = valueOf(lines, 'ice-ufrag');
	const password = valueOf(lines, 'ice-pwd');
	if ((usernameFragment === undefined) !== (password === undefined)) {
		refuse('The fragment has one of a=ice-ufrag and a=ice-pwd; give both, or neither.');
	}
	const candidates = lines.filter((line) => line.startsWith('a=candidate:')).map((line) => line.slice('a='.length));
	if (candidates.length > MAX_CANDIDATES) {
		refuse(`The fragment has more than ${MAX_CANDIDATES} candidates.`);
	}
	return { usernameFragment, password, candidates, mid: valueOf(lines, 'mid'), isEnd: lines.includes('a=end-of-candidates') };
};

const isOfIce = (line: string): boolean => line.startsWith('a=candidate:') || line === 'a=end-of-candidates';

/** The offer that the player would make for its new ICE session: what is not of ICE stays as it was (draft-ietf-wish-whep-04 section 4.4.3). */
export const offerAgain = (offerSdp: string, { usernameFragment = '', password = '', candidates }: SdpFragment): string => {
	const lines = offerSdp.split(/\r\n|\r|\n/u).filter((line) => line !== '' && !isOfIce(line)).map((line) =>
		line.startsWith('a=ice-ufrag:') ? `a=ice-ufrag:${usernameFragment}` : line.startsWith('a=ice-pwd:') ? `a=ice-pwd:${password}` : line);
	// The last section: in one bundle it does not matter which has them.
	return `${[...lines, ...candidates.map((candidate) => `a=${candidate}`)].join('\r\n')}\r\n`;
};

/** What an answer says of ICE. */
export const fragmentOf = (answerSdp: string): string => {
	const lines = answerSdp.split(/\r\n|\r|\n/u);
	const sections = lines.flatMap((line, index) => (line.startsWith('m=') ? [index] : []));
	const start = sections.find((index) => !/^m=\S+ 0 /u.test(lines[index] ?? '')) ?? 0;
	const end = sections.find((index) => index > start) ?? lines.length;
	const section = lines.slice(start, end);
	const session = lines.slice(0, sections[0] ?? 0);
	return `${[
		...session.filter((line) => /^a=(?:ice-lite|ice-options|group)\b/u.test(line)),
		...section.filter((line) => /^(?:m=|a=(?:mid|ice-ufrag|ice-pwd|ice-options):)/u.test(line)),
		...section.filter((line) => line.startsWith('a=candidate:')),
		'a=end-of-candidates',
	].join('\r\n')}\r\n`;
};
