/** The kinds of golden folders that can be checked, by the folder's name. */
import { verifyRcm } from './kind-rcm.js';
import { verifySla } from './kind-sla.js';
import { verifyW8a8 } from './kind-w8a8.js';
import { verifyTaehv } from './kind-taehv.js';
import { verifyUmt5 } from './kind-umt5.js';
import { verifyWanVae } from './kind-wan-vae.js';
import { verifyWanCausal } from './kind-wan-causal.js';
import { verifyTurboDit, verifyWanDit } from './kind-wan-dit.js';
import type { Kind } from './verifier.js';

export const KINDS: { readonly [kind: string]: Kind } = {
	'wan-dit': { verify: verifyWanDit, hasInt8Linears: true },
	'wan-causal-full': { verify: verifyWanCausal, hasInt8Linears: true },
	'wan-causal-window': { verify: verifyWanCausal, hasInt8Linears: true },
	'turbo-dit': { verify: verifyTurboDit, hasInt8Linears: true },
	rcm: { verify: verifyRcm, hasInt8Linears: false },
	taehv: { verify: verifyTaehv, hasInt8Linears: false },
	umt5: { verify: verifyUmt5, hasInt8Linears: false },
	'wan-vae': { verify: verifyWanVae, hasInt8Linears: false },
	sla: { verify: verifySla, hasInt8Linears: false },
	w8a8: { verify: verifyW8a8, hasInt8Linears: false },
};
