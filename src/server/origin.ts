/** Which pages may use the server: browsers name the page's origin, and cannot be made to lie about it. */
import type { IncomingMessage } from 'node:http';

const LOOPBACK_NAMES = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/iu;
const isLoopback = (address: string | undefined): boolean => address !== undefined && /^(?:::ffff:)?127\.|^::1$/u.test(address);

/**
 * True for our own page, for an allowed origin, and for clients that are not browsers. A request that reached us by the
 * loopback interface under a name that is not the loopback's own is a page that rebound its name to this machine (DNS rebinding),
 * or a proxy: the operator names the latter's origin.
 */
export const isAllowedOrigin = (request: IncomingMessage, allowedOrigins: readonly string[]): boolean => {
	const { origin, host = '' } = request.headers;
	if (origin === undefined || allowedOrigins.includes('*') || allowedOrigins.includes(origin)) {
		return true;
	}
	const own = /^https?:\/\/(.+)$/u.exec(origin)?.[1];
	if (own === undefined || own.toLowerCase() !== host.toLowerCase()) {
		return false;
	}
	return !isLoopback(request.socket.localAddress) || LOOPBACK_NAMES.test(host);
};
