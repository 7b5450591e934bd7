/** The cached, windowed denoiser against the slow one (slow-denoiser.ts), on what a stream really asks of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks, type StepInputs } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { latentFrame } from '../../src/engine/sampler.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { writeRandomModel, type RandomModel, type SpecChanges } from '../model/random-model.js';
import { SlowDenoiser, type SlowInputs, type SlowOutputs } from './slow-denoiser.js';

const TOLERANCE = 1e-4;

/** One call of the denoiser, and what it answered. */
type Recorded = { readonly inputs: StepInputs; readonly velocity: Float32Array };

/** Runs a stream and records every forward of its denoiser. */
const record = async (model: RandomModel, chunks: number): Promise<{ readonly recorded: Recorded[]; readonly networks: Networks }> => {
	const { width, height } = model.spec;
	const networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width, height, threads: 1 });
	const recorded: Recorded[] = [];
	const recording: Networks = {
		...networks,
		step: async (inputs) => {
			const { context_timestep: clean, latents_per_chunk: latents } = networks.spec.stream;
			const expected = inputs.wantKeysAndValues ? clean : networks.spec.schedules['2']?.[recorded.length % 3];
			assert.deepEqual(inputs.timesteps, Array.from({ length: latents }, () => expected));
			const outputs = await networks.step(inputs);
			recorded.push({ inputs, velocity: outputs.velocity });
			return outputs;
		},
	};
	const generator = new Generator(recording, new PromptEncoder(networks), () => 0, { seed: 3, firstChunkIndex: 0 });
	for (let chunk = 0; chunk < chunks; chunk++) {
		await generator.generateChunk({ prompt: 'a cat jumps on the beach', steps: 2, controls: { steer_x: 0.5 } }, () => undefined, new AbortController().signal);
	}
	await networks.close();
	return { recorded, networks };
};

const framesOf = (latent: Float32Array, { spec }: Networks): Float32Array[] =>
	Array.from({ length: spec.stream.latents_per_chunk }, (_, index) => latentFrame(latent, spec.dit.in_dim, spec.stream.latents_per_chunk, index));

/** What all frames of one call share. */
const common = ({ inputs }: Recorded, networks: Networks): Pick<SlowInputs, 'height' | 'width' | 'context' | 'mask'> => ({
	height: networks.latentHeight, width: networks.latentWidth, context: inputs.prompt.context, mask: inputs.prompt.mask,
});

const controlsOf = ({ inputs }: Recorded, { spec }: Networks): Float32Array[] =>
	Array.from({ length: spec.stream.latents_per_chunk }, (_, index) =>
		(inputs.control ?? new Float32Array(0)).subarray(index * spec.dit.control_dim, (index + 1) * spec.dit.control_dim));

const assertSame = (call: Recorded, expected: readonly Float64Array[], networks: Networks, what: string): void => {
	const actual = framesOf(call.velocity, networks).flatMap((frame) => [...frame]);
	const wanted = expected.flatMap((frame) => [...frame]);
	assert.equal(actual.length, wanted.length);
	const norm = (values: readonly number[]): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
	const error = norm(actual.map((value, index) => value - (wanted[index] ?? Number.NaN))) / norm(wanted);
	// Written so that NaN fails.
	assert.ok(error <= TOLERANCE, `${what}: relative error ${error}`);
};

const startSlow = async (model: RandomModel): Promise<SlowDenoiser> =>
	new SlowDenoiser(model.spec.dit, await (await openModelFolder(model.path)).readWeights('dit'));

test('before the first eviction the cached stream equals a forward over the full sequence', async () => {
	await using model = await writeRandomModel();
	const chunks = model.spec.stream.window_latents / model.spec.stream.latents_per_chunk;
	const { recorded, networks } = await record(model, chunks);
	const slow = await startSlow(model);
	const perChunk = model.spec.stream.latents_per_chunk;
	const clean: Recorded[] = [];
	for (const call of recorded) {
		const sequence = [...clean, call];
		const { velocity } = slow.forward({
			...common(call, networks),
			frames: sequence.flatMap(({ inputs }) => framesOf(inputs.latent, networks)),
			timesteps: sequence.flatMap(({ inputs }) => inputs.timesteps),
			controls: sequence.flatMap((each) => controlsOf(each, networks)),
			positions: Array.from({ length: sequence.length * perChunk }, (_, position) => position),
			sees: (query, key) => Math.floor(key / perChunk) <= Math.floor(query / perChunk),
		});
		assertSame(call, velocity.slice(-perChunk), networks, `chunk ${clean.length}, timestep ${call.inputs.timesteps[0]}`);
		if (call.inputs.wantKeysAndValues) {
			clean.push(call);
		}
	}
	assert.equal(clean.length, chunks);
});

const AFTER_EVICTION: readonly (readonly [string, SpecChanges['stream']])[] = [
	['without a sink', { window_latents: 6, sink_latents: 0, context_timestep: 20 }],
	['with a sink', { window_latents: 6, sink_latents: 1 }],
	['with a ring that chunks do not fill evenly', { window_latents: 5, sink_latents: 0 }],
];

for (const [title, stream] of AFTER_EVICTION) {
	test(`after it, through three turns of the ring ${title}, the stream equals one that keeps the same keys and values in a list`, async () => {
		await using model = await writeRandomModel({ changes: { stream: stream ?? {} } });
		const { latents_per_chunk: perChunk, window_latents: window, sink_latents: sink } = model.spec.stream;
		const capacity = window - perChunk;
		const chunks = capacity / perChunk + 3 * Math.ceil((capacity - sink) / perChunk) + 1;
		const { recorded, networks } = await record(model, Math.ceil(chunks));
		const slow = await startSlow(model);
		/** Per latent frame since the start of the stream: keys and values of each layer. */
		const history: SlowOutputs['keysAndValues'][] = [];
		for (const call of recorded) {
			const first = history.length;
			const kept = history.filter((_, frame) => frame < sink || frame >= first - (capacity - sink));
			const { velocity, keysAndValues } = slow.forward({
				...common(call, networks),
				frames: framesOf(call.inputs.latent, networks),
				timesteps: call.inputs.timesteps,
				controls: controlsOf(call, networks),
				positions: Array.from({ length: perChunk }, (_, frame) => first + frame),
				past: keysAndValuesOf(kept, model.spec.dit.num_layers),
				sees: () => true,
			});
			assertSame(call, velocity, networks, `latent frame ${first}, timestep ${call.inputs.timesteps[0]}`);
			if (call.inputs.wantKeysAndValues) {
				for (let frame = 0; frame < perChunk; frame++) {
					const slice = (rows: readonly Float64Array[]): Float64Array[] => rows.slice(frame * networks.tokensPerLatent, (frame + 1) * networks.tokensPerLatent);
					history.push(keysAndValues.map(({ k, v }) => ({ k: slice(k), v: slice(v) })));
				}
			}
		}
		assert.ok(history.length >= capacity + 3 * (capacity - sink), 'the ring did not turn three times');
	});
}

const keysAndValuesOf = (frames: readonly SlowOutputs['keysAndValues'][], layers: number): NonNullable<SlowInputs['past']> =>
	Array.from({ length: layers }, (_, layer) => ({ k: frames.flatMap((frame) => frame[layer]?.k ?? []), v: frames.flatMap((frame) => frame[layer]?.v ?? []) }));
