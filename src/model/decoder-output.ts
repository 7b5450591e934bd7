/** What the published decoders and that of own models give besides their memory: pictures, and whether the latent they were made of is one. */
import type { GraphBuilder, Value } from './graph-builder.js';
import { framesToI420 } from './i420.js';
import { absolute, reshape, sum } from './operators.js';

export type DecoderOutput = {
	/** What comes out: float32 RGB [T, 3, H, W], I420 bytes, or those bytes in 32-bit words (i420.ts). Default: RGB of published decoders, I420 of own ones. */
	readonly output?: 'rgb' | 'i420' | 'i420 words' | undefined;
	/** Adds the output `magnitude` [1], the sum of the absolute values of the latent: finite only if all of them are. Default false. */
	readonly checksLatent?: boolean | undefined;
};

/** Gives `magnitude` of a latent of `count` numbers, where it is asked for. */
export const checkedLatent = (g: GraphBuilder, latent: Value, count: number, { checksLatent = false }: DecoderOutput): void => {
	if (checksLatent) {
		g.output('magnitude', reshape(g, 'latent/magnitude', sum(g, 'latent/sum', reshape(g, 'latent/flat', absolute(g, 'latent/absolute', latent), [1, count]), 1), [1]));
	}
};

/** Pictures [T, 3, H, W] in [0, 1] as they are wanted; not RGB. */
export const packedFrames = (g: GraphBuilder, pictures: Value, output: 'i420' | 'i420 words'): Value => framesToI420(g.at('i420'), pictures, output === 'i420 words' ? 'words' : 'bytes');
