/** Addresses and sizes of WHEP (draft-ietf-wish-whep-04), by which any WebRTC player watches a session. */

/** `POST`: a session of its own, or the one that the credential is for. Below it: the resource of each player. */
export const WHEP_PATH = '/v1/realtime/whep';
export const SESSIONS_PATH = '/v1/realtime/sessions';

export const SDP_TYPE = 'application/sdp';
/** RFC 8840 section 9. */
export const FRAGMENT_TYPE = 'application/trickle-ice-sdpfrag';
/** Longest body of a `PATCH`: some sixty candidates. */
export const MAX_FRAGMENT_BYTES = 16 * 1024;
/** Of one player; trickling takes a few. */
export const MOST_PATCHES_PER_MINUTE = 120;
