/** An offer for whoever wants an answer, and no media. */

/** What Chromium offers for one video track to receive and a data channel, shortened to one format of each codec (RFC 9429). */
export const offerSdp = (sessionVersion: number): string => [
	'v=0', `o=- 4611731400430051336 ${sessionVersion} IN IP4 127.0.0.1`, 's=-', 't=0 0', 'a=group:BUNDLE 0 1', 'a=msid-semantic: WMS',
	...[
		['m=video 9 UDP/TLS/RTP/SAVPF 96 97', 'a=mid:0', 'a=recvonly', 'a=rtcp-mux', 'a=rtcp-rsize', 'a=rtpmap:96 VP8/90000', 'a=rtcp-fb:96 nack', 'a=rtcp-fb:96 nack pli', 'a=rtpmap:97 H264/90000',
			'a=rtcp-fb:97 nack', 'a=rtcp-fb:97 nack pli', 'a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f'],
		['m=application 9 UDP/DTLS/SCTP webrtc-datachannel', 'a=mid:1', 'a=sctp-port:5000', 'a=max-message-size:262144'],
	].flatMap(([media = '', ...lines]) => [
		media, 'c=IN IP4 0.0.0.0', 'a=ice-ufrag:cOnF', 'a=ice-pwd:c0nf0rmancec0nf0rmance00', 'a=ice-options:trickle',
		`a=fingerprint:sha-256 ${Array.from({ length: 32 }, (_, index) => index.toString(16).padStart(2, '0').toUpperCase()).join(':')}`, 'a=setup:actpass', ...lines,
	]), '',
].join('\r\n');
