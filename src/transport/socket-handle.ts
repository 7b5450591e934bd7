/** What Node keeps to itself of a UDP socket. It is looked for where release 20 has it; where it is not found, what needs it is not done. */
import type { Socket } from 'node:dgram';

export type Lookup = (address: string, callback: (error: Error | null | undefined, address: string, family?: number) => void) => void;

export type SocketHandle = {
	lookup?: Lookup;
	/** Descriptor of the operating system; negative once the socket is closed, as its number may be another's then. */
	readonly fd?: number;
};

/** `undefined` when the socket is closed, or Node keeps its handles elsewhere. */
export const handleOf = (socket: Socket): SocketHandle | undefined => {
	const symbol = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'state symbol');
	return symbol === undefined ? undefined : ((socket as unknown as { readonly [state: symbol]: { readonly handle?: SocketHandle | null } | undefined })[symbol]?.handle ?? undefined);
};
