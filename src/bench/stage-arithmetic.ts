/** In which numbers the stages of a profile multiply. */
import { assertNever } from '../protocol/assert-never.js';
import { denoiserArithmetic, stateType } from '../engine/profile.js';
import type { EngineProfile } from '../engine/protocol.js';
import type { MatrixType } from './matrix-type.js';
import type { Stage } from './stage.js';

export const FLOAT32: Stage['types'] = { linear: 'float32', attention: 'float32', convolution: 'float32' };

/** 8-bit attention of the processor is that of clips alone, and counted where it is measured; of the kernel's, the half with values is in 16 bits, whose rate counts for both. */
const attentionType = (profile: EngineProfile): MatrixType => {
	const { attention } = denoiserArithmetic(profile);
	switch (attention) {
		case 'float32':
		case 'int8':
		case undefined:
			return 'float32';
		case 'float16':
		case 'fused float16':
		case 'fused int8':
			return 'float16';
		default:
			return assertNever(attention);
	}
};

export const matrixTypes = (profile: EngineProfile, decoder: 'float32' | 'float16' | 'int8'): Stage['types'] => {
	const { linears } = denoiserArithmetic(profile);
	return { linear: linears === 'w8a8' ? 'int8' : typeof linears === 'string' ? linears : 'float32', attention: attentionType(profile), convolution: decoder };
};

/** The kinds of numbers whose rate must be known for the stages of a profile. */
export const typesOf = (profile: EngineProfile): readonly MatrixType[] =>
	[...new Set<MatrixType>(['float32', ...Object.values(matrixTypes(profile, stateType(profile)))])];
