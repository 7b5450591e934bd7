/** The kinds of golden folders that can be checked, by the folder's name. */
import { verifySla } from './kind-sla.js';
import { verifyW8a8 } from './kind-w8a8.js';
import { verifyTaehv } from './kind-taehv.js';
import { verifyUmt5 } from './kind-umt5.js';
import { verifyWanVae } from './kind-wan-vae.js';
import type { Kind } from './verifier.js';

export const KINDS: { readonly [kind: string]: Kind } = {
	taehv: { verify: verifyTaehv, hasInt8Linears: false },
	umt5: { verify: verifyUmt5, hasInt8Linears: false },
	'wan-vae': { verify: verifyWanVae, hasInt8Linears: false },
	sla: { verify: verifySla, hasInt8Linears: false },
	w8a8: { verify: verifyW8a8, hasInt8Linears: false },
};
