/** An offer that was read (`readOffer`) is answered in one round trip: with all candidates of this side. */
import type { RTCPeerConnection } from 'werift';
import { TurbocastError } from '../protocol/errors.js';

/** Gives the answer. Throws `invalid_sdp`, or `transport_failed` when the connection was closed meanwhile. */
export const answerOffer = async (connection: RTCPeerConnection, sdp: string): Promise<string> => {
	try {
		await connection.setRemoteDescription({ type: 'offer', sdp });
		await connection.setLocalDescription(await connection.createAnswer());
	} catch (error) {
		throw new TurbocastError('invalid_sdp', `The offer cannot be answered (${error instanceof Error ? error.message : String(error)}); send the \`sdp\` of RTCPeerConnection.createOffer() as it is.`, { param: 'sdp', cause: error });
	}
	const local = connection.localDescription;
	if (local === null) {
		throw new TurbocastError('transport_failed', 'The connection was closed while its offer was being answered; offer again.');
	}
	return local.sdp;
};
