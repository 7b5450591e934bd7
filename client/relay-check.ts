/** Whether a TURN server gives this browser an address to be relayed through: a connection that gathers such candidates alone. */

export type RelayOutcome = { readonly kind: 'relays' } | { readonly kind: 'refuses'; readonly why: string } | { readonly kind: 'silent' };

/** Of an `icecandidateerror` that the browser makes itself, when nothing answered. */
const NOT_REACHED = 701;

export const tryRelay = (server: RTCIceServer, withinMs: number): Promise<RelayOutcome> => new Promise((resolve) => {
	let connection: RTCPeerConnection;
	try {
		connection = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: 'relay' });
	} catch {
		resolve({ kind: 'silent' });
		return;
	}
	const end = (outcome: RelayOutcome): void => {
		clearTimeout(timer);
		connection.close();
		resolve(outcome);
	};
	// A server may refuse to be used for STUN, and relay all the same: what counts is what comes in the end.
	let refusal: RelayOutcome | undefined;
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
