/** What an engine profile means for the networks. */
import type { EngineProfile } from './protocol.js';

/** How a denoiser computes its linear layers and its self-attention. */
export const denoiserArithmetic = (profile: EngineProfile): { readonly linears: 'float32' | 'int8'; readonly attention: 'float32' | 'int8' } => {
	switch (profile) {
		case 'cpu-fp32':
			return { linears: 'float32', attention: 'float32' };
		case 'cpu-int8':
			return { linears: 'int8', attention: 'float32' };
		case 'cpu-int8-attention':
			return { linears: 'int8', attention: 'int8' };
	}
};
