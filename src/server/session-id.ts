/** Ids of sessions, the secrets with which one comes back to them, and the one door to uuid: version 7 (RFC 9562 section 5.7), so that they sort by time. */
import { randomBytes } from 'node:crypto';
import { v7 } from 'uuid';

export const newSessionId = (): string => `sess_${v7()}`;

export const RESUME_TOKEN_PREFIX = 'rt_';
/** 192 random bits: whoever has it has the session. */
export const newResumeToken = (): string => `${RESUME_TOKEN_PREFIX}${randomBytes(24).toString('base64url')}`;
