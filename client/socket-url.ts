/** Where the control socket of a server is. */
import { REALTIME_PATH } from '../src/protocol/limits.js';

/** `http` stands for `ws`, and the path may be left out. Throws `TypeError` for what is no address. */
export const socketUrl = (url: string, base?: string): string => {
	const address = new URL(url, base);
	address.protocol = address.protocol === 'https:' || address.protocol === 'wss:' ? 'wss:' : 'ws:';
	if (address.pathname === '/' || address.pathname === '') {
		address.pathname = REALTIME_PATH;
	}
	address.hash = '';
	return address.href;
};
