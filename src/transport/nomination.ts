/**
 * A repair of werift 0.25.2: it keeps to the first pair that its peer nominated, for ever. A browser whose way has died goes over to another pair that still
 * works, by nominating that (RFC 8445 section 8.1.1; libwebrtc does so without a restart), hears that all is well, and never gets another picture.
 */
import type { RTCIceTransport } from 'werift';

type Pair = { nominated: boolean; remoteNominated: boolean };

type Inside = {
	nominated: Pair | undefined;
	readonly iceControlling: boolean;
	readonly resetNominatedPair: () => void;
	checkComplete: (pair: Pair) => unknown;
};

/** Goes over to whichever pair the peer nominated last. */
export const followNomination = (transport: RTCIceTransport): void => {
	const inside = transport.connection as unknown as Inside;
	const checkComplete = inside.checkComplete.bind(inside);
	inside.checkComplete = (pair) => {
		const before = inside.nominated;
		if (before !== undefined && before !== pair && !inside.iceControlling && pair.nominated && pair.remoteNominated) {
			inside.resetNominatedPair();
			// Or a late check of that pair would bring it back.
			before.nominated = false;
			before.remoteNominated = false;
		}
		return checkComplete(pair);
	};
};
