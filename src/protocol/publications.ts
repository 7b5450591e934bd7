/** Publications: a running session sent to a WHIP endpoint (RFC 9725). Below `/v1/realtime/sessions/{id}`; what is asked, and what is answered. */
import { object, optional, string, type Infer } from './schema.js';

/** Of a publication: offered and not yet connected, sending, waiting to try again, or over. */
export const PUBLICATION_STATES = ['connecting', 'live', 'waiting', 'ended'] as const;
export type PublicationState = (typeof PUBLICATION_STATES)[number];

export const MAX_PUBLICATION_REQUEST_BYTES = 16 * 1024;

export const PUBLICATION_REQUEST = object({
	/** Of the endpoint. */
	url: string({ min: 1, max: 2048, pattern: /^https?:\/\/\S+$/u, says: 'must be the http(s) address of a WHIP endpoint' }),
	/** Bearer token for it (RFC 6750 section 2.1); never told to anybody else. */
	token: optional(string({ min: 1, max: 4096, pattern: /^[\w\-.~+/]+=*$/u, says: 'must be a bearer token: letters, digits and -._~+/' })),
}, 'refuse');
export type PublicationRequest = Infer<typeof PUBLICATION_REQUEST>;
