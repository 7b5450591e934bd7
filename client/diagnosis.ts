/**
 * What a session can say about the way to its picture, hop by hop, in the words of the table that `turbocast doctor` uses too
 * (src/protocol/diagnoses.ts). It looks at what is there, and asks the server one thing: /healthz.
 */
import { fine, HOPS, judgeClock, judgeMedia, judgeTurn, wrong, type Finding } from '../src/protocol/diagnoses.js';
import type { TurbocastError } from '../src/protocol/errors.js';
import type { ClockOffset } from './clock-sync.js';
import type { IceServers } from './platform.js';
import { socketUrl } from './socket-url.js';
import type { SessionState } from './session-state.js';
import { tryRelay } from './relay-check.js';
import type { TransportState } from './video-transport.js';

export type DiagnosisOptions = {
	/** For one hop. Default 5000. */
	readonly patienceMs?: number;
};

export type SessionFacts = {
	/** Of the control socket. */
	readonly url: string;
	readonly state: SessionState;
	readonly transport: TransportState;
	readonly clock: ClockOffset | undefined;
	/** `undefined` before the server greeted. */
	readonly iceServers: IceServers | undefined;
	/** Of the WebRTC connection, or of the last one that did not come up. */
	readonly report: RTCStatsReport | undefined;
	/** The server's answer to our offer of video, where it was an error. */
	readonly offerError: TurbocastError | undefined;
};

const DEFAULT_PATIENCE_MS = 5000;

type Entry = { readonly type: string; readonly id: string; readonly [name: string]: unknown };

const entriesOf = (report: RTCStatsReport | undefined): Entry[] => [...(report?.values() ?? []) as Iterable<Entry>];
const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

const wordsOf = (candidate: Entry | undefined): string =>
	(candidate === undefined ? 'an unknown candidate' : `${textOf(candidate['candidateType'])} ${textOf(candidate['address']) || 'a hidden address'} (${textOf(candidate['protocol'])})`);

/** The chosen pair in words, of a connection that is up. */
const pairOf = (entries: readonly Entry[]): string | undefined => {
	const chosen = entries.find(({ type }) => type === 'transport')?.['selectedCandidatePairId'];
	const pair = entries.find(({ type, id, state, nominated }) => type === 'candidate-pair' && state === 'succeeded' && (id === chosen || (chosen === undefined && nominated === true)));
	const find = (id: unknown): Entry | undefined => entries.find((entry) => entry.id === id);
	return pair === undefined ? undefined : `${wordsOf(find(pair['localCandidateId']))} to ${wordsOf(find(pair['remoteCandidateId']))}`;
};

const addressesOf = (entries: readonly Entry[], type: string): string[] => [...new Set(entries.filter((entry) => entry.type === type).map((entry) => textOf(entry['address'])).filter((address) => address !== ''))];

const serverHops = async (url: URL, patienceMs: number): Promise<Finding[]> => {
	const startedMs = Date.now();
	try {
		const response = await fetch(new URL('/healthz', url), { cache: 'no-store', signal: AbortSignal.timeout(patienceMs) });
		const endedMs = Date.now();
		const told = await response.json().catch(() => ({})) as { readonly status?: unknown; readonly error?: { readonly message?: string } };
		// Pages of other origins cannot read it.
		const dateMs = Date.parse(response.headers.get('date') ?? '');
		return [
			told.status === 'ok' ? fine('server', `The server at ${url.origin} answers.`)
				: told.error?.message === undefined ? wrong('server_other', { url: url.origin, why: `/healthz was answered with HTTP ${response.status}` }) : wrong('server_ill', { why: told.error.message }),
			...(Number.isNaN(dateMs) ? [] : [judgeClock(dateMs + 500 - (startedMs + endedMs) / 2, 500 + (endedMs - startedMs) / 2)]),
		];
	} catch {
		return [wrong('server_unreached', { url: url.origin, why: 'nothing came back, or the browser does not let this page ask' })];
	}
};

const admissionHop = ({ state, url, iceServers }: SessionFacts): Finding => {
	const error = state.kind === 'failed' || state.kind === 'reconnecting' ? state.error : undefined;
	if (error === undefined) {
		return iceServers === undefined
			? wrong('upgrade_blocked', { url, why: 'it has not been greeted yet' })
			: fine('admission', 'The server has let this page in.');
	}
	switch (error.code) {
		case 'unauthorized': case 'token_expired': case 'forbidden': case 'session_not_found':
			return wrong('key_refused', { why: error.message });
		case 'transport_failed':
			return wrong('upgrade_blocked', { url, why: 'the browser does not say why; where the server refuses pages of this origin, server.allowed_origins lets them in' });
		default:
			return wrong('not_admitted', { why: error.message });
	}
};

const codecHop = async ({ offerError }: SessionFacts): Promise<Finding> => {
	if (offerError !== undefined) {
		return wrong('codec_missing', { why: offerError.message });
	}
	if (typeof RTCRtpReceiver === 'undefined') {
		return fine('codec', 'H.264 and VP8 are decoded by whoever takes the frames.');
	}
	const known = (RTCRtpReceiver.getCapabilities('video')?.codecs ?? []).map(({ mimeType }) => mimeType.toLowerCase());
	const over = ['H.264', 'VP8'].filter((name) => known.includes(`video/${name.replace('.', '').toLowerCase()}`));
	if (over.length === 0) {
		return wrong('codec_missing', { why: 'this browser receives neither H.264 nor VP8 by WebRTC.' });
	}
	const hasWebCodecs = typeof VideoDecoder !== 'undefined' && (await VideoDecoder.isConfigSupported({ codec: 'avc1.42001f' }).catch(() => undefined))?.supported === true;
	return fine('codec', `This browser decodes ${over.join(' and ')} by WebRTC${hasWebCodecs ? ', and H.264 by WebCodecs' : '; it has no WebCodecs for H.264'}.`);
};

const mediaHop = ({ report, transport, offerError }: SessionFacts, url: URL, hasWebRtc: boolean): Finding => {
	if (!hasWebRtc) {
		return wrong('no_webrtc', {}, transport.transport === undefined ? 'broken' : 'doubtful');
	}
	const entries = entriesOf(report);
	const kinds = [...new Set(entries.filter(({ type }) => type === 'local-candidate').map(({ candidateType }) => textOf(candidateType)))];
	const judged = judgeMedia({
		pair: pairOf(entries), reached: url.hostname, announced: addressesOf(entries, 'remote-candidate'),
		// Names like x.local stand for addresses that the browser hides.
		own: addressesOf(entries, 'local-candidate').filter((address) => !address.endsWith('.local')),
	});
	const gathered = kinds.length === 0 ? '' : ` Candidates gathered here: ${kinds.join(', ')}.`;
	if (judged.verdict === 'good') {
		return { ...judged, sentence: `${judged.sentence}${gathered}` };
	}
	if (offerError !== undefined || !entries.some(({ type }) => type === 'remote-candidate')) {
		return { ...wrong('no_webrtc'), verdict: 'doubtful', sentence: transport.reason ?? 'There is no WebRTC connection yet.', fix: 'Mend what is wrong above first, then look again.' };
	}
	// The picture comes all the same.
	const isPlaying = transport.transport !== undefined && transport.transport !== 'webrtc';
	return { ...judged, verdict: isPlaying ? 'doubtful' : 'broken', sentence: `${judged.sentence}${gathered}` };
};

const pictureHop = ({ transport, clock }: SessionFacts): Finding => {
	const offset = clock === undefined ? 'not compared yet' : `${clock.offsetMs.toFixed(0)} ms apart, to ${clock.uncertaintyMs.toFixed(1)} ms; a round trip takes ${clock.roundTripMs.toFixed(1)} ms`;
	const way = transport.transport === undefined ? 'No picture was asked for yet' : `The picture comes by ${transport.transport}${transport.reason === undefined ? '' : `: ${transport.reason.replace(/\.$/u, '')}`}`;
	return fine('picture', `${way}. Clocks of frames: ${offset}.`);
};

/** In the order of the hops. Never rejects, and takes about twice `patienceMs` at most. */
export const diagnose = async (facts: SessionFacts, { patienceMs = DEFAULT_PATIENCE_MS }: DiagnosisOptions = {}): Promise<Finding[]> => {
	const url = new URL(socketUrl(facts.url).replace(/^ws/u, 'http'));
	const hasWebRtc = typeof RTCPeerConnection !== 'undefined' || facts.report !== undefined;
	const [server, codec, turn] = await Promise.all([
		serverHops(url, patienceMs), codecHop(facts), facts.iceServers === undefined || typeof RTCPeerConnection === 'undefined' ? [] : judgeTurn(facts.iceServers, (urls, username, credential) => tryRelay({ urls, username, credential }, patienceMs)),
	]);
	const later = facts.iceServers === undefined ? [] : [codec, ...turn, mediaHop(facts, url, hasWebRtc), pictureHop(facts)];
	return [...server, admissionHop(facts), ...later].sort((a, b) => HOPS.indexOf(a.hop) - HOPS.indexOf(b.hop));
};
