/** The kinds of golden folders that can be checked, by the folder's name. */
import { verifyW8a8 } from './kind-w8a8.js';
import type { Kind } from './verifier.js';

export const KINDS: { readonly [kind: string]: Kind } = {
	w8a8: { verify: verifyW8a8, hasInt8Linears: false },
};
