/**
 * Server keys: `sk_` and 256 random bits. Only the SHA-256 of each is kept. Nobody guesses that many bits, so one round is enough; the slow
 * hashes are made for passwords, which people choose.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

export const SERVER_KEY_PREFIX = 'sk_';
/** At least 32 characters after the prefix, so that a key made by other means (`openssl rand -hex 32`) can be used, a word cannot. */
export const SERVER_KEY_FORM = /^sk_[\w-]{32,128}$/u;

export type StoredKey = {
	/** Part of the hash: says which key without saying the key. */
	readonly id: string;
	readonly label: string;
	/** Hexadecimal. */
	readonly sha256: string;
	/** ISO 8601. */
	readonly created_at: string;
};

const digestOf = (key: string): Buffer => createHash('sha256').update(key).digest();

export const storedKeyOf = (value: string, label: string, createdAt: Date): StoredKey => {
	const sha256 = digestOf(value).toString('hex');
	return { id: `key_${sha256.slice(0, 12)}`, label, sha256, created_at: createdAt.toISOString() };
};

export const newServerKey = (): string => `${SERVER_KEY_PREFIX}${randomBytes(32).toString('base64url')}`;

/** Which of `keys` the value is. Takes the same time whichever it is, and when it is none. */
export const findKey = (keys: readonly StoredKey[], value: string): StoredKey | undefined => {
	const digest = digestOf(value);
	let found: StoredKey | undefined;
	for (const key of keys) {
		if (timingSafeEqual(digest, Buffer.from(key.sha256, 'hex'))) {
			found = key;
		}
	}
	return found;
};
