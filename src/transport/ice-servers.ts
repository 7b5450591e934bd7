/** STUN and TURN servers in the form of the WebRTC library. */
import type { RTCIceServer } from 'werift';
import type { IceServerAddress } from './transport.js';

/** One entry for each address. Empty ones are to be given, too: the library's default is a public server. */
export const iceServersOf = (servers: readonly IceServerAddress[]): RTCIceServer[] =>
	servers.flatMap(({ urls, username, credential }) => (typeof urls === 'string' ? [urls] : urls).map((url) => ({
		urls: url, ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }),
	})));
