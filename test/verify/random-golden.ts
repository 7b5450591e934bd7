/**
 * Golden folders of random networks at sizes that no committed set has, computed by the plain-loop reference. They have the
 * form that the original implementations' sets have.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ReferenceDit } from '../../src/engine/backends/reference-dit.js';
import { sparseLinearAttention } from '../../src/engine/backends/reference-sparse.js';
import { RCM_SOLVERS, rcmLoop, rcmTimes, rcmTimestep } from '../../src/engine/rcm.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { encodeSafetensors, parseSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import type { SparseShape } from '../../src/model/sparse-linear-attention.js';
import type { DitDimensions } from '../../src/model/spec.js';
import { Weights } from '../../src/model/weights.js';
import { randomNormals, randomWeights } from '../model/random-model.js';

export type Tensors = { readonly [name: string]: TensorToWrite };

export const floats = (shape: readonly number[], data: Float32Array): TensorToWrite => ({ dtype: 'F32', shape, data });

export const normals = (shape: readonly number[], seed: number): TensorToWrite & { readonly data: Float32Array } =>
	({ dtype: 'F32', shape, data: randomNormals(shape.reduce((product, size) => product * size, 1), seed) });

/** Writes `KIND/` below a temporary folder with what is given; cases are numbered from 1. `await using` removes it. */
export const writeGolden = async (kind: string, config: unknown, cases: readonly Tensors[], weights?: Uint8Array): Promise<AsyncDisposable & { readonly path: string }> => {
	const root = await mkdtemp(join(tmpdir(), 'turbocast-golden-'));
	const path = join(root, kind);
	await mkdir(path);
	await writeFile(join(path, 'config.json'), JSON.stringify(config));
	for (const [index, tensors] of cases.entries()) {
		await writeFile(join(path, `case-${index + 1}.safetensors`), encodeSafetensors(tensors));
	}
	if (weights !== undefined) {
		await writeFile(join(path, 'weights.safetensors'), weights);
	}
	return { path, [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }) };
};

/** Nothing is a power of two, nothing square, input and output channels differ. */
export const ODD_DIT: DitDimensions = {
	dim: 60, ffn_dim: 70, num_heads: 3, num_layers: 2, in_dim: 5, out_dim: 3, patch_size: [1, 2, 1], freq_dim: 34, text_dim: 22, text_len: 7, eps: 1e-6,
	qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const [FRAMES, HEIGHT, WIDTH] = [3, 10, 7];

export const randomDit = (spec: DitDimensions, isSparse: boolean, seed: number): { bytes: Uint8Array; weights: Weights } => {
	const bytes = randomWeights(ditTensors(spec, isSparse), seed, 'F32');
	return { bytes, weights: new Weights(parseSafetensors('weights.safetensors', bytes)) };
};

export type ClipGolden = { readonly config: unknown; readonly cases: readonly Tensors[]; readonly weights: Uint8Array };

const clipShared = (sparse: SparseShape | undefined) =>
	({ frames: FRAMES, height: HEIGHT, width: WIDTH, control: new Float32Array(0), firstPosition: 0, pastK: [], pastV: [], ...(sparse === undefined ? {} : { sparse }) });

const slaConfig = (sparse: SparseShape) => ({ topk: sparse.ratio, block_q: sparse.blockQueries, block_k: sparse.blockKeys });

export const clipGolden = (spec: DitDimensions, sparse: SparseShape | undefined, seed: number): ClipGolden => {
	const { bytes, weights } = randomDit(spec, sparse !== undefined, seed);
	const reference = new ReferenceDit(spec, weights);
	const cases = [333.25, 988].map((timestep, index): Tensors => {
		const [x, context] = [normals([spec.in_dim, FRAMES, HEIGHT, WIDTH], seed + index), normals([spec.text_len, spec.text_dim], seed + 10 + index)];
		const { velocity } = reference.forward({ ...clipShared(sparse), latent: x.data, timesteps: [timestep], text: reference.text(context.data, []) });
		return { x, context, timestep: floats([1], Float32Array.of(timestep)), velocity: floats([spec.out_dim, FRAMES, HEIGHT, WIDTH], velocity) };
	});
	return { config: sparse === undefined ? spec : { ...spec, sla: slaConfig(sparse) }, cases, weights: bytes };
};

/** One case for each solver; the network's files stand in the folder itself. */
export const rcmGolden = async (spec: DitDimensions, sparse: SparseShape, seed: number) => {
	const { bytes, weights } = randomDit(spec, true, seed);
	const reference = new ReferenceDit(spec, weights);
	const steps = 3;
	const times = rcmTimes(200, steps);
	const dims = [spec.in_dim, FRAMES, HEIGHT, WIDTH];
	const cases = await Promise.all(RCM_SOLVERS.map(async (solver, index): Promise<Tensors> => {
		const [noise, context] = [normals(dims, seed + index), normals([spec.text_len, spec.text_dim], seed + 10 + index)];
		const fresh = Array.from({ length: steps }, (_, step) => normals(dims, seed + 20 + 10 * index + step));
		const text = reference.text(context.data, []);
		const forward = (latent: Float32Array, timestep: number): Promise<Float32Array> =>
			Promise.resolve(reference.forward({ ...clipShared(sparse), latent, timesteps: [timestep], text }).velocity);
		const states: Float32Array[] = [];
		for await (const x of rcmLoop({ times, solver, noise: noise.data, freshNoise: (step) => fresh[step]?.data ?? new Float32Array(0), forward })) {
			states.push(Float32Array.from(x));
		}
		return {
			noise, context, times: { dtype: 'F64', shape: [steps + 1], data: Float64Array.from(times) },
			timesteps: floats([steps], Float32Array.from(times.slice(0, -1), rcmTimestep)),
			...Object.fromEntries(states.flatMap((state, step) => [[`x.step${step}`, floats(dims, state)], [`noise.step${step}`, fresh[step] ?? noise]])),
		};
	}));
	return {
		network: { ...spec, sla: slaConfig(sparse) }, weights: bytes, cases,
		config: { sigma_max: 200, cases: RCM_SOLVERS.map((solver) => ({ steps, solver })), weights: './network/weights.safetensors', config: './network/config.json' },
	};
};

/** Chunks of a stream; the window is applied here to whole frames, frame by frame, without a ring. */
export const causalGolden = (spec: DitDimensions, window: { frames: number; size: number; sink: number; chunks: number }, seed: number): ClipGolden => {
	const { bytes, weights } = randomDit(spec, false, seed);
	const reference = new ReferenceDit(spec, weights);
	const context = normals([1, spec.text_len, spec.text_dim], seed);
	const text = reference.text(context.data, []);
	const tokens = (HEIGHT / (spec.patch_size[1] ?? 1)) * (WIDTH / (spec.patch_size[2] ?? 1));
	const [heads, headDim] = [spec.num_heads, spec.dim / spec.num_heads];
	const tensors: Record<string, TensorToWrite> = { context };
	/** By layer and frame: [heads, tokens, d]. */
	type Frames = Float32Array[][];
	const frameOf = (whole: Float32Array, frame: number): Float32Array => Float32Array.from({ length: heads * tokens * headDim }, (_, index) => {
		const head = Math.floor(index / (tokens * headDim));
		return whole[(head * window.frames + frame) * tokens * headDim + (index % (tokens * headDim))] ?? Number.NaN;
	});
	const joined = (frames: readonly Float32Array[]): Float32Array => Float32Array.from({ length: frames.length * heads * tokens * headDim }, (_, index) => {
		const [head, within] = [Math.floor(index / (frames.length * tokens * headDim)), index % (frames.length * tokens * headDim)];
		return frames[Math.floor(within / (tokens * headDim))]?.[head * tokens * headDim + (within % (tokens * headDim))] ?? Number.NaN;
	});
	let [pastK, pastV]: [Frames, Frames] = [Array.from({ length: spec.num_layers }, () => []), Array.from({ length: spec.num_layers }, () => [])];
	const kept = (frames: Float32Array[]): Float32Array[] => {
		const room = window.size === -1 ? frames.length : window.size - window.frames;
		return frames.length <= room ? frames : [...frames.slice(0, window.sink), ...frames.slice(frames.length - (room - window.sink))];
	};
	for (let chunk = 0; chunk < window.chunks; chunk++) {
		for (const [step, noise] of [700, 0].entries()) {
			const x = normals([1, spec.in_dim, window.frames, HEIGHT, WIDTH], seed + 10 * chunk + step + 1);
			const timesteps = Array.from({ length: window.frames }, (_, frame) => noise + frame);
			const { velocity, newK, newV } = reference.forward({
				...clipShared(undefined), frames: window.frames, latent: x.data, timesteps, text, firstPosition: chunk * window.frames,
				pastK: pastK.map(joined), pastV: pastV.map(joined),
			});
			Object.assign(tensors, {
				[`block${chunk}.step${step}.x`]: x, [`block${chunk}.step${step}.timestep`]: floats([1, window.frames], Float32Array.from(timesteps)),
				[`block${chunk}.step${step}.velocity`]: floats([1, spec.out_dim, window.frames, HEIGHT, WIDTH], velocity),
			});
			if (step === 1) {
				const grown = (past: Frames, fresh: readonly Float32Array[]): Frames => past.map((frames, layer) =>
					kept([...frames, ...Array.from({ length: window.frames }, (_, frame) => frameOf(fresh[layer] ?? new Float32Array(0), frame))]));
				[pastK, pastV] = [grown(pastK, newK), grown(pastV, newV)];
			}
		}
	}
	return { config: { ...spec, num_frame_per_block: window.frames, local_attn_size: window.size, sink_size: window.sink }, cases: [tensors], weights: bytes };
};

export type SlaSize = { readonly batch: number; readonly tokens: number; readonly heads: number; readonly headDim: number; readonly shape: SparseShape };

/** One case of the kind `sla`; with `isLinearOff` the projection of the linear branch is zero. */
export const slaCase = ({ batch, tokens, heads, headDim, shape }: SlaSize, seed: number): { parameters: unknown; tensors: Tensors } => {
	const dims = [batch, tokens, heads, headDim];
	const [q, k, v] = [normals(dims, seed), normals(dims, seed + 1), normals(dims, seed + 2)];
	const proj = { weight: normals([headDim, headDim], seed + 3), bias: normals([headDim], seed + 4) };
	const [queryBlocks, keyBlocks] = [Math.ceil(tokens / shape.blockQueries), Math.ceil(tokens / shape.blockKeys)];
	const [out, sparse, map] = [new Float32Array(q.data.length), new Float32Array(q.data.length), new Uint8Array(batch * heads * queryBlocks * keyBlocks)];
	const size = tokens * heads * headDim;
	for (let element = 0; element < batch; element++) {
		const part = (x: Float32Array): Float32Array => x.subarray(element * size, (element + 1) * size);
		const inputs = { q: part(q.data), k: part(k.data), v: part(v.data), heads, width: heads * headDim };
		const both = sparseLinearAttention(inputs, shape, { weight: proj.weight.data, bias: proj.bias.data });
		out.set(both.out, element * size);
		sparse.set(sparseLinearAttention(inputs, shape, { weight: new Float32Array(headDim ** 2), bias: new Float32Array(headDim) }).out, element * size);
		for (const [head, rows] of both.chosen.entries()) {
			for (const [row, blocks] of rows.entries()) {
				for (const block of blocks) {
					map[((element * heads + head) * queryBlocks + row) * keyBlocks + block] = 1;
				}
			}
		}
	}
	return {
		parameters: { heads, tokens, head_dim: headDim, topk: shape.ratio, block_q: shape.blockQueries, block_k: shape.blockKeys },
		tensors: {
			q, k, v, 'proj_l.weight': proj.weight, 'proj_l.bias': proj.bias, out: floats(dims, out), sparse_branch: floats(dims, sparse),
			block_map: { dtype: 'U8', shape: [batch, heads, queryBlocks, keyBlocks], data: map },
		},
	};
};
