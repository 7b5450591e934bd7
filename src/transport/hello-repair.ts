/**
 * A repair of werift 0.25.2: its DTLS client takes a second HelloVerifyRequest for an error, and gives the connection up. A server answers every ClientHello with
 * one (RFC 6347 section 4.2.1), and this side sends its ClientHello again when nothing came for half a second: so a long way, or a peer that is busy, was enough.
 * Peers of werift and Pion ask so; browsers do not.
 */
import type { RTCDtlsTransport } from 'werift';

const HELLO_VERIFY_REQUEST = 3;
/** The ClientHello with the cookie has been sent. */
const FLIGHT_OF_COOKIE = 3;

type Handshake = { readonly msg_type: number };
type Socket = { onHandleHandshakes: (messages: readonly Handshake[]) => Promise<void>; readonly dtls: { readonly flight: number } };

/** Before the handshake: a request that was answered is passed over. */
export const passOverRepeatedVerify = (transport: RTCDtlsTransport): void => {
	transport.onStateChange.subscribe((state) => {
		if (state !== 'connecting') {
			return;
		}
		// The library makes the socket in the same turn, after it has said this.
		queueMicrotask(() => {
			const { dtls: socket } = transport as unknown as { readonly dtls?: Socket };
			if (socket !== undefined) {
				const handle = socket.onHandleHandshakes;
				socket.onHandleHandshakes = (messages) => handle(messages.filter(({ msg_type: type }) => type !== HELLO_VERIFY_REQUEST || socket.dtls.flight < FLIGHT_OF_COOKIE));
			}
		});
	});
};
