/** Where a request comes from, for limits: the peer itself, or, behind proxies that the operator trusts, whoever they say stands before them. */
import type { IncomingMessage } from 'node:http';
import { BlockList, isIP } from 'node:net';
import { TurbocastError } from '../protocol/errors.js';

export type AddressOf = (request: IncomingMessage) => string;

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4');

/** One form for each address: a socket for both families shows IPv4 peers as `::ffff:192.0.2.1`. */
const plain = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/iu, '');

/** `proxies`: addresses, or networks such as 10.0.0.0/8. Throws `invalid_config`. */
export const createAddressOf = (proxies: readonly string[]): AddressOf => {
	const trusted = new BlockList();
	for (const proxy of proxies) {
		const [address = '', bits] = proxy.split('/', 2);
		const most = isIP(address) === 6 ? 128 : 32;
		if (isIP(address) === 0 || (bits !== undefined && (!/^\d{1,3}$/u.test(bits) || Number(bits) > most))) {
			throw new TurbocastError('invalid_config', `\`server.trusted_proxies\` has "${proxy}", which is neither an address nor a network such as 10.0.0.0/8.`, { param: 'server.trusted_proxies' });
		}
		trusted.addSubnet(address, bits === undefined ? most : Number(bits), familyOf(address));
	}
	const isTrusted = (address: string): boolean => trusted.check(address, familyOf(address));
	return (request) => {
		let address = plain(request.socket.remoteAddress ?? '');
		const forwarded = [request.headers['x-forwarded-for'] ?? []].flat().join(',').split(',').map((entry) => plain(entry.trim())).reverse();
		// From the nearest on, each proxy vouches for the one before it; what stands before the first stranger, anybody may have written.
		for (const before of forwarded) {
			if (!isTrusted(address) || isIP(before) === 0) {
				break;
			}
			address = before;
		}
		return address;
	};
};
