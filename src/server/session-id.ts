/** Ids of sessions, and the one door to uuid: version 7 (RFC 9562 section 5.7), so that they sort by time. */
import { v7 } from 'uuid';

export const newSessionId = (): string => `sess_${v7()}`;
