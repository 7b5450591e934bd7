/**
 * What a sampler does between two forwards, as small graphs, so that a latent need not leave the device that computes it. Every update of
 * `schedule.ts` is a sum of the latent, its velocity and noise, with factors that are inputs: one graph is good for all numbers of steps.
 *
 * Letters in shapes: C channels, F latent frames of a chunk, h x w latent size.
 */
import { GraphBuilder, type Value } from './graph-builder.js';
import type { Graph } from './graph.js';
import { absolute, add, multiply, reshape, slice, split, sum } from './operators.js';

/** Of a chunk. */
export type LatentDims = readonly [channels: number, frames: number, height: number, width: number];

const weighted = (g: GraphBuilder, terms: readonly Value[]): Value => {
	const factors = split(g, 'factors/each', g.input('factors', 'float32', [terms.length]), 0, terms.map(() => 1));
	return terms.map((term, index) => multiply(g, `${term.name}/weighted`, term, factors[index] as Value)).reduce((total, term) => add(g, `${term.name}/added`, total, term));
};

const latentInputs = (g: GraphBuilder, names: readonly string[], dims: LatentDims): Value[] => names.map((name) => g.input(name, 'float32', dims));

/** Inputs: `latent`, `velocity` and, of samplers that draw it, `noise` [C, F, h, w]; `factors` [2 or 3], one for each. Output: `next` [C, F, h, w]. */
export const latentUpdateGraph = (dims: LatentDims, drawsNoise: boolean): Graph => {
	const g = new GraphBuilder('latent-update');
	g.output('next', weighted(g, latentInputs(g, ['latent', 'velocity', ...(drawsNoise ? ['noise'] : [])], dims)));
	return g.finish();
};

/**
 * The last step of a chunk. Inputs: `latent`, `velocity` [C, F, h, w]; `factors` [2]. Outputs: `next` [C, F, h, w], and `frame.I` [C, h, w], each latent frame
 * by itself. Where any number of the chunk is not finite no number of a frame is, so that whoever decodes the first one sees it.
 */
export const latentEndGraph = (dims: LatentDims): Graph => {
	const [channels, frames, height, width] = dims;
	const g = new GraphBuilder('latent-end');
	const clean = weighted(g, latentInputs(g, ['latent', 'velocity'], dims));
	const magnitude = sum(g, 'magnitude', reshape(g, 'flat', absolute(g, 'absolute', clean), [1, channels * frames * height * width]), 1);
	const nothing = reshape(g, 'nothing', multiply(g, 'magnitude/none', magnitude, g.float('zero', 0)), [1]);
	const whole = add(g, 'clean/checked', clean, nothing);
	g.output('next', clean);
	for (let frame = 0; frame < frames; frame++) {
		g.output(`frame.${frame}`, reshape(g, `frame${frame}`, slice(g, `frame${frame}/slice`, whole, 1, frame, frame + 1), [channels, height, width]));
	}
	return g.finish();
};
