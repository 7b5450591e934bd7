/** Addresses as Linux takes them (ip(7), ipv6(7)): the family in the order of the machine's bytes, which is little-endian here, the rest in that of the network. */
import { isIP } from 'node:net';

const AF_INET = 2;
const AF_INET6 = 10;
const IPV4_BYTES = 16;
const IPV6_BYTES = 28;
const GROUPS = 8;

/** 16-bit groups of an IPv6 address. `URL` writes every form of it as hexadecimal groups with at most one `::`. */
const groupsOf = (host: string): number[] => {
	const [front = [], back = []] = new URL(`http://[${host}]`).hostname.slice(1, -1).split('::').map((part) => (part === '' ? [] : part.split(':').map((group) => Number.parseInt(group, 16))));
	return [...front, ...new Array<number>(GROUPS - front.length - back.length).fill(0), ...back];
};

/** sockaddr_in or sockaddr_in6. `undefined` for names, and for addresses that name an interface (`fe80::1%eth0`). */
export const socketAddress = (host: string, port: number): Buffer | undefined => {
	const family = isIP(host);
	if (family === 0 || host.includes('%')) {
		return undefined;
	}
	const bytes = Buffer.alloc(family === 4 ? IPV4_BYTES : IPV6_BYTES);
	bytes.writeUInt16LE(family === 4 ? AF_INET : AF_INET6, 0);
	bytes.writeUInt16BE(port, 2);
	if (family === 4) {
		bytes.set(host.split('.').map(Number), 4);
	} else {
		groupsOf(host).forEach((group, index) => bytes.writeUInt16BE(group, 8 + 2 * index));
	}
	return bytes;
};
