/** The client SDK in Node: the same session, whose frames are handed to the program. */
import { closeOnAbort, sessionOptions, type ConnectionOptions } from '../client.js';
import { socketUrl } from '../socket-url.js';
import { NodeSession } from './node-session.js';

export * from '../index.js';
export { NodeSession, type FramesOptions } from './node-session.js';
export type { DecodedFrame, EncodedFrame } from './video-frame.js';

/**
 * Connects to a server. Returns at once; never throws for what the network does: `session.state` becomes `failed` and whatever is awaited
 * rejects with a `TurbocastError`. Throws `TypeError` for what is no address.
 */
export const connect = (url: string, options: ConnectionOptions = {}): NodeSession => {
	const session = new NodeSession(sessionOptions(socketUrl(url), options));
	closeOnAbort(session, options.signal);
	return session;
};
