/** What an engine profile means for the networks. */
import type { DitGraphOptions } from '../model/dit.js';
import { assertNever } from '../protocol/assert-never.js';
import type { EngineProfile } from './protocol.js';

export type ProfileDevice = 'cpu' | 'webgpu' | 'cuda';

export const deviceOf = (profile: EngineProfile): ProfileDevice => (profile.startsWith('webgpu') ? 'webgpu' : profile.startsWith('cuda') ? 'cuda' : 'cpu');

/** The numbers in which the state of a stream is kept: keys and values, memory of the decoder. */
export const stateType = (profile: EngineProfile): 'float32' | 'float16' => (profile === 'webgpu-fp16' || profile === 'cuda-fp16' || profile === 'cuda-int8' ? 'float16' : 'float32');

/** Whether a profile is made of the kernels of native/cuda: without them there is nothing to compute it. */
export const needsKernels = (profile: EngineProfile): boolean => profile === 'cuda-int8';

/** Whether a profile calls those kernels where a backend has them. */
export const usesKernels = (profile: EngineProfile): boolean => profile === 'cuda-fp16' || needsKernels(profile);

/** How a denoiser computes its linear layers and its self-attention, on a backend that has our kernels or has none. */
export const denoiserArithmetic = (profile: EngineProfile, { hasKernels = false }: { readonly hasKernels?: boolean | undefined } = {}): Required<Pick<DitGraphOptions, 'linears' | 'attention' | 'kernels'>> =>
	({ ...arithmeticOf(profile), kernels: hasKernels && usesKernels(profile) });

const arithmeticOf = (profile: EngineProfile): Required<Pick<DitGraphOptions, 'linears' | 'attention'>> => {
	switch (profile) {
		case 'cpu-fp32':
		case 'webgpu-fp32':
		case 'cuda-fp32':
			return { linears: 'float32', attention: 'float32' };
		case 'cpu-int8':
			return { linears: 'int8', attention: 'float32' };
		case 'cpu-int8-attention':
			return { linears: 'int8', attention: 'int8' };
		case 'webgpu-fp16':
			return { linears: 'float16', attention: 'float16' };
		case 'cuda-fp16':
			return { linears: 'float16', attention: 'fused float16' };
		case 'cuda-int8':
			return { linears: 'w8a8', attention: 'fused int8' };
		default:
			return assertNever(profile);
	}
};

/** How the decoder of an own model computes; `int8` only where the model has its ranges. */
export const decoderArithmetic = (profile: EngineProfile, hasRanges: boolean): 'float32' | 'float16' | 'int8' =>
	(deviceOf(profile) === 'cpu' && profile !== 'cpu-fp32' && hasRanges ? 'int8' : stateType(profile));
