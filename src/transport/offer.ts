/**
 * Reads a browser's offer (RFC 8866, RFC 8829) before the WebRTC library does: refuses what cannot be answered, with a sentence,
 * and narrows the rest to what this side will use. Narrowing is needed because the library picks the first H.264 format
 * of an offer whatever its profile and packetization mode, and because a hostile offer may hold any number of anything.
 */
import { VIDEO_CODECS, type VideoCodec } from '../base/frame.js';
import { TurbocastError } from '../protocol/errors.js';
import { MAX_SDP_LENGTH } from '../protocol/limits.js';

export type Offer = {
	/** What the library gets. */
	readonly sdp: string;
	/** The one that the viewer will be sent. */
	readonly codec: VideoCodec;
	/** Whether the offer has a section for data channels. */
	readonly hasDataChannels: boolean;
	/** The same in every offer of one peer connection, and in no other's: the session id of the `o=` line (RFC 8866 section 5.2) and the certificate. */
	readonly peer: string;
	/** Of the video section. */
	readonly mid: string;
	/** Of all sections, in their order. */
	readonly mids: readonly (string | undefined)[];
	/** Whether it names an address that can be tried. A browser hides its own behind names until it may use the camera. */
	readonly hasCandidates: boolean;
	/** Of its ICE session: another one in a later offer of the same peer is an ICE restart (RFC 8839 section 4.4.1.1.1). */
	readonly usernameFragment: string;
};

/** A browser that offers every codec and a dozen tracks stays below each of these by half. */
export const MAX_SDP_LINES = 2000;
export const MAX_SDP_SECTIONS = 16;
export const MAX_CANDIDATES = 64;

type Section = { readonly kind: string; readonly lines: readonly string[] };
type Format = { readonly payloadType: string; readonly name: string; readonly parameters: { readonly [name: string]: string } };

const refuse = (sentence: string, code: 'invalid_sdp' | 'unsupported_media' = 'invalid_sdp'): never => {
	throw new TurbocastError(code, sentence, { param: 'sdp' });
};

const split = (sdp: string): { readonly session: readonly string[]; readonly sections: readonly Section[] } => {
	if (sdp.length > MAX_SDP_LENGTH) {
		refuse(`The offer is longer than ${MAX_SDP_LENGTH} characters; offer fewer tracks and codecs.`);
	}
	const lines = sdp.split(/\r\n|\r|\n/u).filter((line) => line !== '');
	if (lines[0] !== 'v=0' || !lines.every((line) => /^[a-z]=/u.test(line))) {
		refuse('The offer is not a session description (RFC 8866); send the `sdp` of RTCPeerConnection.createOffer() as it is.');
	}
	if (lines.length > MAX_SDP_LINES) {
		refuse(`The offer has more than ${MAX_SDP_LINES} lines; offer fewer tracks and codecs.`);
	}
	const first = lines.findIndex((line) => line.startsWith('m='));
	if (first < 0) {
		refuse('The offer has no media section; add a transceiver for video that receives: addTransceiver("video", { direction: "recvonly" }).');
	}
	const sections: { kind: string; lines: string[] }[] = [];
	for (const line of lines.slice(first)) {
		if (line.startsWith('m=')) {
			sections.push({ kind: line.slice(2).split(' ', 1)[0] ?? '', lines: [] });
		}
		sections.at(-1)?.lines.push(line);
	}
	if (sections.length > MAX_SDP_SECTIONS) {
		refuse(`The offer has more than ${MAX_SDP_SECTIONS} media sections; offer fewer tracks.`);
	}
	return { session: lines.slice(0, first), sections };
};

/** Value of the first attribute of that name, `''` for one without a value. */
const attribute = (lines: readonly string[], name: string): string | undefined => {
	const found = lines.find((line) => line === `a=${name}` || line.startsWith(`a=${name}:`));
	return found?.slice(3 + name.length);
};

/** Username, session id and address of the `o=` line; what is left out, the version, counts the offers. */
const originOf = (session: readonly string[]): string => {
	const [username, id, , ...address] = (session.find((line) => line.startsWith('o=')) ?? '').slice(2).split(' ');
	return [username, id, ...address].join(' ');
};

const parametersOf = (text: string): { [name: string]: string } =>
	Object.fromEntries(text.split(';').map((pair) => {
		const [name = '', value = ''] = pair.split('=', 2);
		return [name.trim().toLowerCase(), value.trim()];
	}));

/** The formats of a section, in the order of preference of its `m=` line. */
const formatsOf = (section: Section): Format[] => {
	const listed = (section.lines[0] ?? '').split(' ').slice(3);
	const after = (prefix: string): Map<string, string> =>
		new Map(section.lines.filter((line) => line.startsWith(prefix)).map((line) => {
			const [payloadType = '', ...rest] = line.slice(prefix.length).split(' ');
			return [payloadType, rest.join(' ')];
		}));
	const names = after('a=rtpmap:');
	const parameters = after('a=fmtp:');
	return listed.flatMap((payloadType) => {
		const name = names.get(payloadType)?.toLowerCase();
		return name === undefined ? [] : [{ payloadType, name, parameters: parametersOf(parameters.get(payloadType) ?? '') }];
	});
};

/**
 * How well this side can send to a format; `undefined` for not at all. What is encoded is H.264 constrained baseline
 * (RFC 6184 section 8.1: profile_idc 66), which every profile of H.264 decoders reads; pictures larger than a packet need packetization mode 1.
 */
const fitness = ({ name, parameters }: Format): number | undefined => {
	if (name === 'vp8/90000') {
		return 0;
	}
	if (name !== 'h264/90000' || parameters['packetization-mode'] !== '1') {
		return undefined;
	}
	const profile = (parameters['profile-level-id'] ?? '42e01f').toLowerCase();
	return profile.startsWith('42e0') ? 3 : profile.startsWith('42') ? 2 : 1;
};

const codecOf = (format: Format): VideoCodec => (format.name === 'vp8/90000' ? 'vp8' : 'h264');

type Choice = { readonly section: Section; readonly format: Format; readonly rtx: Format | undefined };

const choose = (sections: readonly Section[]): Choice => {
	const receiving = sections.filter(({ kind, lines }) =>
		kind === 'video' && attribute(lines, 'sendonly') === undefined && attribute(lines, 'inactive') === undefined && portOf(lines) !== '0');
	const [section] = receiving;
	if (section === undefined) {
		return refuse('The offer has no video section that receives; add one: addTransceiver("video", { direction: "recvonly" }).', 'unsupported_media');
	}
	const formats = formatsOf(section);
	const format = formats
		.filter((candidate) => fitness(candidate) !== undefined)
		.sort((a, b) => VIDEO_CODECS.indexOf(codecOf(a)) - VIDEO_CODECS.indexOf(codecOf(b)) || (fitness(b) ?? 0) - (fitness(a) ?? 0))[0];
	if (format === undefined) {
		return refuse('The offer has neither H.264 with packetization-mode=1 nor VP8; offer one of them.', 'unsupported_media');
	}
	const rtx = formats.find(({ name, parameters }) => name === 'rtx/90000' && parameters['apt'] === format.payloadType);
	return { section, format, rtx };
};

/** A bundled section may have port 0 and still be meant (RFC 8843 section 6). */
const portOf = (lines: readonly string[]): string =>
	attribute(lines, 'bundle-only') === undefined ? ((lines[0] ?? '').split(' ')[1] ?? '0') : '9';

const withPort = ([mediaLine = '', ...rest]: readonly string[], port: string, formats?: readonly string[]): string[] => {
	const [media = '', , protocol = '', ...offered] = mediaLine.split(' ');
	return [[media, port, protocol, ...(formats ?? offered)].join(' '), ...rest.filter((line) => line !== 'a=bundle-only')];
};

/** Of the video section: only the chosen format and its retransmissions. */
const narrow = ({ section, format, rtx }: Choice): string[] => {
	const kept = [format.payloadType, ...(rtx === undefined ? [] : [rtx.payloadType])];
	const lines = section.lines.filter((line) => {
		const of = /^a=(?:rtpmap|fmtp|rtcp-fb):(\S+)/u.exec(line)?.[1];
		return of === undefined || of === '*' || kept.includes(of);
	});
	return withPort(lines, '9', kept);
};

/**
 * Whether a candidate is worth trying: UDP, and not a name to be resolved by multicast. A browser that hides its address behind
 * such a name reaches this side by itself, and is then known by where its packets come from (RFC 8445 section 7.3.1.3).
 */
export const isUsableCandidate = (candidate: string): boolean => {
	const [, , transport = '', , address = ''] = candidate.split(' ');
	return transport.toLowerCase() === 'udp' && /^[0-9a-fA-F.:]+$/u.test(address);
};

/**
 * Drops candidates that are of no use, and those above the bound. Where none is left, that there are no more is not said either: the library would give up
 * before it is reached.
 */
const limitCandidates = (lines: readonly string[]): string[] => {
	let candidates = 0;
	const kept = lines.filter((line) => {
		if (!line.startsWith('a=candidate:')) {
			return true;
		}
		candidates += 1;
		return candidates <= MAX_CANDIDATES && isUsableCandidate(line.slice('a='.length));
	});
	return kept.some((line) => line.startsWith('a=candidate:')) ? kept : kept.filter((line) => line !== 'a=end-of-candidates');
};

/** Throws `invalid_sdp`; `unsupported_media` for one that asks for nothing that can be sent here. */
export const readOffer = (sdp: string): Offer => {
	const { session, sections } = split(sdp);
	const choice = choose(sections);
	const described = [...choice.section.lines, ...session];
	for (const [name, says] of [['ice-ufrag', 'ICE credentials'], ['ice-pwd', 'ICE credentials'], ['fingerprint', 'a DTLS fingerprint'], ['setup', 'a DTLS role']] as const) {
		if (attribute(described, name) === undefined) {
			refuse(`The offer has no ${says} (a=${name}) for its video; send the \`sdp\` of RTCPeerConnection.createOffer() as it is.`);
		}
	}
	if (attribute(choice.section.lines, 'mid') === undefined) {
		refuse('The video section of the offer has no a=mid; send the `sdp` of RTCPeerConnection.createOffer() as it is.');
	}
	const application = sections.find((section) => section.kind === 'application' && portOf(section.lines) !== '0');
	// All sections share the way of the video's; candidates that a browser wrote into one that is refused here would be lost with it.
	const candidates = sections.filter((section) => section !== choice.section).flatMap(({ lines }) => lines.filter((line) => line.startsWith('a=candidate:')));
	const narrowed = sections.flatMap((section) =>
		section === choice.section
			? [...narrow(choice), ...candidates.filter((line) => !section.lines.includes(line))]
			: withPort(section.lines.filter((line) => !line.startsWith('a=candidate:')), section === application ? '9' : '0'));
	const lines = limitCandidates(narrowed);
	return {
		sdp: `${[...session, ...lines].join('\r\n')}\r\n`,
		codec: codecOf(choice.format),
		hasCandidates: lines.some((line) => line.startsWith('a=candidate:')),
		hasDataChannels: application !== undefined,
		mid: attribute(choice.section.lines, 'mid') ?? '',
		mids: sections.map(({ lines }) => attribute(lines, 'mid')),
		peer: `${originOf(session)} ${attribute(described, 'fingerprint') ?? ''}`,
		usernameFragment: attribute(described, 'ice-ufrag') ?? '',
	};
};

/**
 * An answer to an offer of this side, narrowed to the one format that will be sent: the library would take the first that it knows. Throws `invalid_sdp`
 * when it does not take the video.
 */
export const readAnswer = (sdp: string): { readonly sdp: string; readonly codec: VideoCodec } => {
	try {
		const { session, sections } = split(sdp);
		const choice = choose(sections);
		const described = [...choice.section.lines, ...session];
		if (['ice-ufrag', 'ice-pwd', 'fingerprint', 'setup'].some((name) => attribute(described, name) === undefined)) {
			refuse('It lacks ICE credentials or a DTLS fingerprint.');
		}
		const lines = sections.flatMap((section) => (section === choice.section ? narrow(choice) : section.lines));
		return { sdp: `${[...session, ...limitCandidates(lines)].join('\r\n')}\r\n`, codec: codecOf(choice.format) };
	} catch (error) {
		throw new TurbocastError('invalid_sdp', 'The answer does not take the video: it must have a video section that receives, with H.264 in packetization mode 1 or VP8, ICE credentials and a DTLS fingerprint.', { param: 'sdp', cause: error });
	}
};
