import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { MAX_SDP_LENGTH } from '../../src/protocol/limits.js';
import { isUsableCandidate, MAX_CANDIDATES, MAX_SDP_LINES, MAX_SDP_SECTIONS, readOffer } from '../../src/transport/offer.js';
import type { Transport } from '../../src/transport/transport.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';

const CREDENTIALS = [
	'a=ice-ufrag:4ZcD', 'a=ice-pwd:2/1muCWoOi3uLifh0NuRHlom', 'a=setup:actpass',
	'a=fingerprint:sha-256 7B:8B:F0:65:5F:78:E2:51:3B:AC:6F:F3:3F:46:1B:35:DC:B8:5F:64:1A:24:C2:43:F0:A1:58:D0:A1:2C:19:08',
];

/** As Chromium writes it, shortened: VP8 first, H.264 in four forms. */
const VIDEO = [
	'm=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100 101 102 103 104 105', 'c=IN IP4 0.0.0.0', 'a=rtcp:9 IN IP4 0.0.0.0', ...CREDENTIALS,
	'a=mid:0', 'a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01', 'a=recvonly', 'a=rtcp-mux', 'a=rtcp-rsize',
	'a=rtpmap:96 VP8/90000', 'a=rtcp-fb:96 nack pli', 'a=rtpmap:97 rtx/90000', 'a=fmtp:97 apt=96',
	'a=rtpmap:98 H264/90000', 'a=fmtp:98 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f',
	'a=rtpmap:99 H264/90000', 'a=fmtp:99 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f',
	'a=rtpmap:100 H264/90000', 'a=fmtp:100 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f',
	'a=rtpmap:101 H264/90000', 'a=rtcp-fb:101 nack pli', 'a=fmtp:101 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f',
	'a=rtpmap:102 rtx/90000', 'a=fmtp:102 apt=101', 'a=rtpmap:103 rtx/90000', 'a=fmtp:103 apt=100', 'a=rtpmap:104 AV1/90000', 'a=rtpmap:105 red/90000',
];
const APPLICATION = ['m=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'c=IN IP4 0.0.0.0', ...CREDENTIALS, 'a=mid:1', 'a=sctp-port:5000', 'a=max-message-size:262144'];
const AUDIO = ['m=audio 9 UDP/TLS/RTP/SAVPF 111', 'c=IN IP4 0.0.0.0', ...CREDENTIALS, 'a=mid:2', 'a=recvonly', 'a=rtcp-mux', 'a=rtpmap:111 opus/48000/2'];
const SESSION = ['v=0', 'o=- 4962303333179871722 2 IN IP4 127.0.0.1', 's=-', 't=0 0', 'a=group:BUNDLE 0 1'];

const sdp = (...parts: (readonly string[])[]): string => `${[SESSION, ...parts].flat().join('\r\n')}\r\n`;
const without = (lines: readonly string[], start: string): string[] => lines.filter((line) => !line.startsWith(start));
const refused = (message: RegExp, code = 'invalid_sdp'): object => ({ name: 'TurbocastError', code, message });

describe('an offer', () => {
	test('H.264 constrained baseline in packetization mode 1 is taken before everything else, with its retransmissions', () => {
		const offer = readOffer(sdp(VIDEO, APPLICATION));
		assert.equal(offer.codec, 'h264');
		assert.equal(offer.hasDataChannels, true);
		assert.match(offer.sdp, /m=video 9 UDP\/TLS\/RTP\/SAVPF 101 102\r\n/u);
		assert.deepEqual(offer.sdp.match(/a=(?:rtpmap|fmtp|rtcp-fb):\d+/gu), ['a=rtpmap:101', 'a=rtcp-fb:101', 'a=fmtp:101', 'a=rtpmap:102', 'a=fmtp:102']);
	});

	test('VP8 is taken when no H.264 can be sent', () => {
		const lines = VIDEO.filter((line) => !/^a=fmtp:(?:99|100|101) /u.test(line));
		const offer = readOffer(sdp(lines));
		assert.equal(offer.codec, 'vp8');
		assert.equal(offer.hasDataChannels, false);
		assert.match(offer.sdp, /SAVPF 96 97\r\n/u);
	});

	test('other sections are kept in place but rejected, and bundled ones with port 0 are taken as meant', () => {
		const bundled = ['m=video 0 UDP/TLS/RTP/SAVPF 96', ...VIDEO.slice(1), 'a=bundle-only'];
		const offer = readOffer(sdp(AUDIO, bundled, APPLICATION));
		assert.deepEqual(offer.sdp.match(/^m=\S+ \d+/gmu), ['m=audio 0', 'm=video 9', 'm=application 9']);
		assert.doesNotMatch(offer.sdp, /bundle-only/u);
	});

	test('candidates in a section that is refused are kept: all sections share one way', () => {
		const candidate = 'a=candidate:1 1 udp 2113937151 192.0.2.1 54321 typ host';
		const offer = readOffer(sdp([...AUDIO, candidate], VIDEO));
		assert.match(offer.sdp.slice(offer.sdp.indexOf('m=video')), new RegExp(candidate, 'u'));
		assert.equal(offer.sdp.split(candidate).length, 2);
		assert.deepEqual(offer.mids, ['2', '0']);
	});

	test('offers of one connection are known by their origin and certificate, whatever their version and ICE credentials', () => {
		const first = readOffer(sdp(VIDEO));
		const later = sdp(VIDEO).replace('8722 2 IN', '8722 3 IN');
		assert.equal(readOffer(later.replace(/a=ice-ufrag:.*/u, 'a=ice-ufrag:next')).peer, first.peer);
		assert.equal(readOffer(later.replace(/a=ice-ufrag:.*/u, 'a=ice-ufrag:next')).usernameFragment, 'next');
		assert.notEqual(readOffer(later.replace('496230', '596230')).peer, first.peer);
		assert.notEqual(readOffer(later.replace(/(a=fingerprint:\S+ )../u, '$1FF')).peer, first.peer);
	});

	test('what is not a session description is refused, with what to send instead', () => {
		for (const text of ['', 'hello', '{"type":"offer"}', 'v=0', 'v=1\r\nm=video', '\0\0\0', sdp(['this is no line'])]) {
			assert.throws(() => readOffer(text), refused(/createOffer|addTransceiver/u), JSON.stringify(text));
		}
	});

	test('an offer without video that receives is refused', () => {
		for (const text of [sdp(APPLICATION), sdp(AUDIO), sdp(VIDEO.map((line) => (line === 'a=recvonly' ? 'a=sendonly' : line))), sdp(['m=video 0 UDP/TLS/RTP/SAVPF 96', ...VIDEO.slice(1)])]) {
			assert.throws(() => readOffer(text), refused(/addTransceiver\("video"/u, 'unsupported_media'));
		}
	});

	test('an offer without a codec of ours is refused and told which', () => {
		assert.throws(() => readOffer(sdp(VIDEO.filter((line) => !/VP8|H264/u.test(line)))), refused(/neither H\.264 with packetization-mode=1 nor VP8/u, 'unsupported_media'));
	});

	test('an offer without credentials is refused and told which', () => {
		for (const name of ['a=ice-ufrag', 'a=ice-pwd', 'a=fingerprint', 'a=setup', 'a=mid']) {
			assert.throws(() => readOffer(sdp(without(VIDEO, name))), refused(new RegExp(name, 'u')));
		}
	});

	test('its length, lines, sections and candidates have limits', () => {
		assert.throws(() => readOffer('v=0\r\n'.padEnd(MAX_SDP_LENGTH + 1, 'a')), refused(new RegExp(String(MAX_SDP_LENGTH), 'u')));
		assert.throws(() => readOffer(sdp(VIDEO, new Array<string>(MAX_SDP_LINES).fill('a=x'))), refused(/lines/u));
		assert.throws(() => readOffer(sdp(VIDEO, ...new Array<string[]>(MAX_SDP_SECTIONS).fill(['m=audio 9 X 1']))), refused(/sections/u));
		const candidate = 'a=candidate:1 1 udp 2113937151 192.0.2.1 54321 typ host';
		const { sdp: kept } = readOffer(sdp(VIDEO, new Array<string>(200).fill(candidate)));
		assert.equal(kept.split(candidate).length - 1, MAX_CANDIDATES);
	});

	test('that there are no more candidates is left out where none is of use: the peer may still come by itself', () => {
		const hidden = 'a=candidate:1 1 udp 2113937151 3f1c.local 54321 typ host';
		assert.doesNotMatch(readOffer(sdp([...VIDEO, hidden, 'a=end-of-candidates'])).sdp, /end-of-candidates/u);
		assert.match(readOffer(sdp([...VIDEO, hidden.replace('3f1c.local', '192.0.2.1'), 'a=end-of-candidates'])).sdp, /end-of-candidates/u);
	});

	test('candidates that need TCP or multicast names are left out', () => {
		assert.equal(isUsableCandidate('candidate:1 1 udp 2113937151 192.0.2.1 54321 typ host'), true);
		assert.equal(isUsableCandidate('candidate:1 1 UDP 2113937151 2001:db8::1 54321 typ host'), true);
		assert.equal(isUsableCandidate('candidate:1 1 tcp 2113937151 192.0.2.1 9 typ host tcptype active'), false);
		assert.equal(isUsableCandidate('candidate:1 1 udp 2113937151 5f3c.local 54321 typ host'), false);
		assert.equal(isUsableCandidate(''), false);
	});
});

describe('answering', () => {
	let transport: Transport;
	before(() => {
		transport = createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: 16, log: silentLog, clock: systemClock });
	});
	after(() => transport.close());

	test('one round trip: the answer sends H.264, takes the data channel and has candidates', async () => {
		const { viewer, answerSdp } = await transport.accept(sdp(VIDEO, APPLICATION));
		assert.match(answerSdp, /m=video 9 UDP\/TLS\/RTP\/SAVPF 101 102\r\n/u);
		assert.match(answerSdp, /a=sendonly/u);
		assert.match(answerSdp, /a=fmtp:101 .*profile-level-id=42e01f/u);
		assert.match(answerSdp, /a=ssrc-group:FID \d+ \d+/u);
		assert.match(answerSdp, /m=application 9 /u);
		assert.match(answerSdp, /a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 \d+ typ host/u);
		assert.match(answerSdp, /a=end-of-candidates/u);
		await viewer.close('test is over');
	});

	test('a damaged offer is answered or refused with invalid_sdp, and nothing hangs or throws elsewhere', async () => {
		const lines = [...SESSION, ...VIDEO, ...APPLICATION];
		let state = 7;
		const random = (below: number): number => {
			state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
			return Math.floor((state / 2 ** 32) * below);
		};
		for (let round = 0; round < 60; round += 1) {
			const damaged = [...lines];
			for (let hit = 0; hit < 1 + random(3); hit += 1) {
				const at = random(damaged.length);
				const line = damaged[at] ?? '';
				const ways = [line.slice(0, random(line.length + 1)), line.replace(/\d+/gu, '99999999999999999999'), `${line} ${line}`, line.replace(/[:=]/gu, ' '), ''];
				damaged.splice(at, 1, ways[random(ways.length)] ?? '');
			}
			try {
				const { viewer } = await transport.accept(`${damaged.join('\r\n')}\r\n`);
				await viewer.close('test is over');
			} catch (error) {
				assert.ok(error instanceof TurbocastError && (error.code === 'invalid_sdp' || error.code === 'unsupported_media'), `${String(error)}\n${damaged.join('\n')}`);
			}
		}
	});
});
