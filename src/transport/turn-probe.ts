/** Whether a TURN server relays for somebody with these credentials: one allocation (RFC 8656 section 7), given back at once. */
import { isIPv6 } from 'node:net';
import { classes, parseMessage, TcpTransport, TlsTransport, TurnProtocol, UdpTransport } from 'werift';

export type TurnOutcome =
	| { readonly kind: 'relays'; readonly address: string }
	| { readonly kind: 'refuses'; readonly why: string }
	| { readonly kind: 'silent'; readonly why: string };

/** Of the allocation; it is given back at once. */
const LIFETIME_SECONDS = 60;
const FORM = /^(turns?):(\[[^\]]+\]|[^:?]+)(?::(\d+))?(?:\?transport=(udp|tcp))?$/u;

/** The part of the library's transports that is used. */
type Carrier = { onData: (data: Buffer, from: readonly [string, number]) => void };

/**
 * The first error that is not the question for credentials. The library waits for one that is signed, which a refusal of credentials cannot be (RFC 8489
 * section 9.2.4), and takes it for silence.
 */
const refusalOf = (carrier: Carrier): Promise<TurnOutcome> => new Promise((resolve) => {
	let challenges = 0;
	const handle = carrier.onData;
	carrier.onData = (data, from) => {
		handle(data, from);
		const message = parseMessage(data);
		const error = message?.messageClass === classes.ERROR ? message.getAttributeValue('ERROR-CODE') as readonly [code: number, phrase: string] | undefined : undefined;
		if (error === undefined) {
			return;
		}
		challenges += error[0] === 401 || error[0] === 438 ? 1 : 0;
		if (challenges !== 1) {
			resolve({ kind: 'refuses', why: error.join(' ') });
		}
	};
});

/** Never rejects. */
export const tryTurn = async (url: string, username: string, password: string, withinMs: number): Promise<TurnOutcome> => {
	const [, scheme, host = '', port, transport = scheme === 'turns' ? 'tcp' : 'udp'] = FORM.exec(url) ?? [];
	if (scheme === undefined) {
		return { kind: 'silent', why: 'it is not an address of the form turn:HOST:PORT?transport=udp' };
	}
	const address = [host.replaceAll(/[[\]]/gu, ''), Number(port ?? (scheme === 'turns' ? 5349 : 3478))] as [string, number];
	let timer: NodeJS.Timeout | undefined;
	let give: () => Promise<unknown> = () => Promise.resolve();
	try {
		const carrier = scheme === 'turns' ? await TlsTransport.init(address, {}, { connectTimeoutMs: withinMs })
			: transport === 'tcp' ? await TcpTransport.init(address, { connectTimeoutMs: withinMs })
				: await UdpTransport.init(isIPv6(address[0]) ? 'udp6' : 'udp4', {});
		// The library's own types disagree about an address that may be missing.
		const turn = new TurnProtocol(address, username, password, LIFETIME_SECONDS, carrier as UdpTransport);
		give = async () => {
			// Or they go on for half a minute.
			Object.values(turn.transactions).forEach((transaction) => transaction.cancel());
			await carrier.close();
		};
		// Takes hold of the carrier at once.
		const allocating = turn.connectionMade();
		return await Promise.race([
			allocating.then((): TurnOutcome => {
				give = () => turn.close();
				return { kind: 'relays', address: turn.relayedAddress.join(':') };
			}),
			refusalOf(carrier),
			new Promise<TurnOutcome>((resolve) => {
				timer = setTimeout(() => resolve({ kind: 'silent', why: `nothing came in ${withinMs / 1000} seconds` }), withinMs);
			}),
		]);
	} catch (error) {
		return { kind: 'silent', why: error instanceof Error && error.message !== '' ? error.message : 'the network gave up' };
	} finally {
		clearTimeout(timer);
		await give().catch(() => undefined);
	}
};
