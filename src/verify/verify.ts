/** Checks a golden folder case by case: is what we compute what the original computed? */
import type { Backend } from '../engine/backend.js';
import type { EngineProfile } from '../engine/protocol.js';
import { TurbocastError } from '../protocol/errors.js';
import { openGoldenFolder } from './golden-folder.js';
import { KINDS } from './kinds.js';

/** Float32 rounding, added up over a network. */
const FLOAT_TOLERANCE = 1e-4;
/** What fewer bits may cost a denoiser: linear layers, and attention too. */
const DENOISER_TOLERANCES = {
	'cpu-fp32': FLOAT_TOLERANCE, 'cpu-int8': 2e-2, 'cpu-int8-attention': 5e-2, 'webgpu-fp32': FLOAT_TOLERANCE, 'webgpu-fp16': 1e-2, 'cuda-fp32': FLOAT_TOLERANCE, 'cuda-fp16': 1e-2, 'cuda-int8': 2e-2,
} as const satisfies { readonly [P in EngineProfile]: number };

export type Verdict = {
	readonly case: string;
	readonly kind: string;
	/** The worst of the case's outputs; NaN when anything is not a number. */
	readonly relativeError: number;
	readonly pass: boolean;
};

/** Math.max would do, but says -Infinity of nothing: a case that compared nothing must not pass. */
const worstOf = (errors: readonly number[]): number => (errors.length === 0 ? Number.NaN : Math.max(...errors));

/** Throws `invalid_option` for a kind that is not known, `model_invalid` or `weights_corrupt` for a folder that cannot be computed. */
export const verifyFolder = async function* (path: string, profile: EngineProfile, backend: Backend, warn: (sentence: string) => void): AsyncGenerator<Verdict> {
	const folder = await openGoldenFolder(path);
	const kind = Object.hasOwn(KINDS, folder.kind) ? KINDS[folder.kind] : undefined;
	if (kind === undefined) {
		throw new TurbocastError('invalid_option', `"${folder.kind}" is not a kind that can be checked; the folder's name must be one of ${Object.keys(KINDS).join(', ')}.`);
	}
	const tolerance = kind.hasInt8Linears ? DENOISER_TOLERANCES[profile] : FLOAT_TOLERANCE;
	for await (const { case: name, outputs } of kind.verify(folder, profile, backend, warn)) {
		const relativeError = worstOf(outputs.map((output) => output.relativeError));
		yield { case: name, kind: folder.kind, relativeError, pass: relativeError <= tolerance };
	}
};
