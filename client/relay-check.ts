/** Whether a TURN server gives this browser an address to be relayed through: a connection that gathers such candidates alone. */

import type { TurnOutcome } from '../src/protocol/diagnoses.js';

/** Of an `icecandidateerror` that the browser makes itself, when nothing answered. */
const NOT_REACHED = 701;

export const tryRelay = (server: RTCIceServer, withinMs: number): Promise<TurnOutcome> => new Promise((resolve) => {
	let connection: RTCPeerConnection;
	try {
		connection = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
	} catch {
		resolve({ kind: 'silent' });
		return;
	}
	const end = (outcome: TurnOutcome): void => {
		clearTimeout(timer);
		connection.close();
		resolve(outcome);
	};
	// A server may refuse to be used for STUN, and relay all the same: what counts is what comes in the end.
	let refusal: TurnOutcome | undefined;
	const timer = setTimeout(() => end(refusal ?? { kind: 'silent' }), withinMs);
	connection.addEventListener('icecandidate', ({ candidate }) => {
		if (candidate?.type === 'relay') {
			end({ kind: 'relays' });
		} else if (candidate === null) {
			end(refusal ?? { kind: 'silent' });
		}
	});
	connection.addEventListener('icecandidateerror', ({ errorCode, errorText }) => {
		if (errorCode !== NOT_REACHED) {
			refusal = { kind: 'refuses', why: `${errorCode} ${errorText}`.trim() };
		}
	});
	connection.createDataChannel('');
	connection.setLocalDescription().catch(() => end({ kind: 'silent' }));
});
