/** Joined models through the engine's own parts, against plain loops: every frame of a clip and of a stream. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClipGenerator } from '../../src/engine/clip-generator.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { StreamCopy } from '../../src/engine/stream-state.js';
import type { Residency } from '../../src/engine/protocol.js';
import { createRandom } from '../model/random-model.js';
import { type JoinedModel, writeJoinedModel } from '../model/joined-model.js';
import { assertSameFrames, referenceClip, referenceStream } from './joined-reference.js';

const PROMPT = 'a rocket flies over the snow';
const never = new AbortController().signal;

const load = (model: JoinedModel, options: { latents?: number; residency?: Residency; profile?: 'cpu-int8' | 'cpu-fp32'; width?: number; height?: number } = {}): Promise<Networks> => {
	const { profile = 'cpu-fp32', width = 32, height = 32, ...rest } = options;
	return loadNetworks({ folder: model.path, profile, width, height, threads: 1, ...rest });
};

const clipOf = async (networks: Networks, options: { seed: number; steps: number; latents: number; image?: Uint8Array }): Promise<{ frames: Uint8Array[]; parts: [number, number][] }> => {
	const generator = new ClipGenerator(networks, new PromptEncoder(networks), () => 0, { seed: options.seed, firstChunkIndex: 0, latents: options.latents, image: options.image });
	const [frames, parts]: [Uint8Array[], [number, number][]] = [[], []];
	await generator.generateChunk({ prompt: PROMPT, steps: options.steps, controls: {} }, (first, pictures) => {
		parts.push([first, pictures.length]);
		frames.push(...pictures);
	}, never);
	return { frames, parts };
};

for (const decoder of ['vae', 'taehv'] as const) {
	test(`a clip is what the description of TurboDiffusion says, frame by frame, and comes latent by latent: ${decoder}`, async () => {
		using model = await writeJoinedModel({ kind: 'turbodiffusion', decoder, changes: { clip: { attention: { ratio: 0.5, block_queries: 4, block_keys: 4 } } } });
		const networks = await load(model, { latents: 3, width: 48 });
		try {
			const { frames, parts } = await clipOf(networks, { seed: 5, steps: 3, latents: 3 });
			assert.deepEqual(parts, [[0, 1], [1, 4], [5, 4]]);
			assertSameFrames(frames, await referenceClip({ path: model.path, prompt: PROMPT, seed: 5, steps: 3, latents: 3, width: 48, height: 32 }));
		} finally {
			await networks.close();
		}
	});
}

test('a whole clip from the weights of the golden folders: text, sparse attention, sampler and decoder together', async () => {
	using model = await writeJoinedModel({ kind: 'golden', decoder: 'taehv', changes: { clip: { attention: { ratio: 0.5, block_queries: 16, block_keys: 8 } } } });
	const networks = await load(model, { latents: 3, width: 64, height: 48 });
	try {
		const { frames } = await clipOf(networks, { seed: 9, steps: 4, latents: 3 });
		assertSameFrames(frames, await referenceClip({ path: model.path, prompt: PROMPT, seed: 9, steps: 4, latents: 3, width: 64, height: 48 }));
	} finally {
		await networks.close();
	}
});

test('one network in memory at a time gives the same bytes as all of them', async () => {
	using model = await writeJoinedModel({ kind: 'turbodiffusion' });
	const clips: Uint8Array[][] = [];
	for (const residency of ['all', 'one'] as const) {
		const networks = await load(model, { latents: 2, residency });
		clips.push((await clipOf(networks, { seed: 1, steps: 2, latents: 2 })).frames);
		await networks.close();
	}
	assert.equal(clips[0]?.length, 5);
	assert.deepEqual(clips[0], clips[1]);
});

test('what a first prompt would wait for is loaded ahead, a graph a round, and changes nothing', async () => {
	using model = await writeJoinedModel({ kind: 'turbodiffusion' });
	using experts = await writeJoinedModel({ kind: 'image-to-video' });
	const clips: Uint8Array[][] = [];
	for (const [of, residency, rounds] of [[model, 'all', 4], [model, 'one', 1], [experts, 'all', 6]] as const) {
		const networks = await load(of, { latents: 2, residency });
		let count = 0;
		for await (const round of networks.prepare?.() ?? []) {
			count += round === undefined ? 1 : 0;
		}
		assert.equal(count, rounds);
		clips.push(of === model ? (await clipOf(networks, { seed: 1, steps: 2, latents: 2 })).frames : []);
		await networks.close();
	}
	const unprepared = await load(model, { latents: 2, residency: 'all' });
	const { frames } = await clipOf(unprepared, { seed: 1, steps: 2, latents: 2 });
	await unprepared.close();
	assert.deepEqual([clips[0], clips[1]], [frames, frames]);
});

test('a picture and two experts: mask, picture and the switch between the networks are where the description has them', async () => {
	using model = await writeJoinedModel({ kind: 'image-to-video', changes: { clip: { attention: { ratio: 0.5, block_queries: 4, block_keys: 4 } } } });
	const random = createRandom(3);
	const image = Uint8Array.from({ length: 3 * 32 * 32 }, () => Math.floor(256 * random()));
	const networks = await load(model, { latents: 2, residency: 'one' });
	try {
		// Of four steps the last two are the second expert's.
		const { frames } = await clipOf(networks, { seed: 2, steps: 4, latents: 2, image });
		assertSameFrames(frames, await referenceClip({ path: model.path, prompt: PROMPT, seed: 2, steps: 4, latents: 2, width: 32, height: 32, image }));
		await assert.rejects(clipOf(networks, { seed: 2, steps: 1, latents: 2 }), { code: 'invalid_request', message: /makes a picture move/u });
	} finally {
		await networks.close();
	}
});

for (const decoder of ['vae', 'taehv'] as const) {
	test(`a stream is what Self-Forcing's loop says, chunk by chunk, 9 frames and then 12: ${decoder}`, async () => {
		using model = await writeJoinedModel({ kind: 'self-forcing', decoder });
		const networks = await load(model);
		try {
			const generator = new Generator(networks, new PromptEncoder(networks), () => 0, { seed: 7, firstChunkIndex: 0 });
			const frames: Uint8Array[] = [];
			const parts: number[][] = [];
			for (let chunk = 0; chunk < 2; chunk++) {
				const firsts: number[] = [];
				await generator.generateChunk({ prompt: PROMPT, steps: 4, controls: {} }, (first, pictures) => {
					firsts.push(first);
					frames.push(...pictures);
				}, never);
				parts.push(firsts);
			}
			assert.deepEqual(parts, [[0, 1, 5], [0, 4, 8]]);
			assert.equal(frames.length, 21);
			assertSameFrames(frames, await referenceStream({ path: model.path, prompt: PROMPT, seed: 7, steps: 4, latents: 6, width: 32, height: 32 }));
		} finally {
			await networks.close();
		}
	});
}

test('a stream goes on past its window and past the table of positions, and from a snapshot bit for bit', async () => {
	using model = await writeJoinedModel({ kind: 'self-forcing', decoder: 'taehv', changes: { stream: { latents_per_chunk: 1, window_latents: 4, sink_latents: 1 } } });
	const networks = await load(model, { profile: 'cpu-int8' });
	try {
		// The original's table ends at 1024 latent frames.
		const generator = new Generator(networks, new PromptEncoder(networks), () => 0, { seed: 7, firstChunkIndex: 1020 });
		const state = new StreamCopy(networks.spec);
		const next = async (of: Generator): Promise<Uint8Array[]> => {
			const frames: Uint8Array[] = [];
			const { checkpoint } = await of.generateChunk({ prompt: PROMPT, steps: 2, controls: {} }, (_, pictures) => frames.push(...pictures), never);
			state.take(structuredClone(checkpoint ?? assert.fail('no checkpoint')));
			return frames;
		};
		for (let chunk = 0; chunk < 8; chunk++) {
			assert.equal((await next(generator)).length, chunk === 0 ? 1 : 4);
		}
		const copy = new Generator(networks, new PromptEncoder(networks), () => 0, { seed: 7, firstChunkIndex: 0 });
		const { snapshot } = state;
		assert.ok(snapshot !== undefined);
		copy.restore(snapshot);
		assert.deepEqual(await next(copy), await next(generator));
	} finally {
		await networks.close();
	}
});
