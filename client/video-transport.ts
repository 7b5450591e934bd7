/** The ways that the video of a session can come, best first, and the words for why a worse one is used. */

export const TRANSPORTS = [
	/** RTP over UDP: what is late is left out. */
	'webrtc',
	/** Access units over the control socket, decoded by WebCodecs. */
	'websocket',
	/** The same, put into fragments of MP4 for Media Source Extensions: where a page has no WebCodecs, such as on plain http. */
	'fmp4',
] as const;
export type VideoTransport = (typeof TRANSPORTS)[number];
/** `auto`: the best that works, tried again when it did not. */
export type TransportChoice = 'auto' | VideoTransport;

export type TransportState = {
	/** `undefined` before there is a picture by any. */
	readonly transport: VideoTransport | undefined;
	/** Why it is not a better one, as a sentence; `undefined` for the best. */
	readonly reason: string | undefined;
};

export const SLOW = 'WebRTC did not connect in two seconds; UDP to the server may be blocked.';
export const FAILED = 'WebRTC could not connect; UDP is blocked, or the server announces an address that cannot be reached.';
export const LOST = 'The WebRTC connection was lost; UDP may be blocked now.';
export const NO_WEBRTC = 'WebRTC is missing here.';
export const WANTED = 'The application asked for it.';

/** Why the page cannot decode by itself. */
export const noWebCodecs = (): string => (globalThis.isSecureContext === false
	? 'WebCodecs needs https (or localhost).'
	: 'This browser has no WebCodecs for this video.');
