import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import type { StateTensor } from '../../src/engine/backend.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type Networks } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { StreamCopy } from '../../src/engine/stream-state.js';
import type { ChunkInputs } from '../../src/engine/protocol.js';
import { framesPerChunk } from '../../src/model/spec.js';
import { TurbocastError } from '../../src/protocol/errors.js';
import { poisonWord, POISONED } from './poisoned-model.js';
import { writeRandomModel, type RandomModel } from '../model/random-model.js';

const INPUTS: ChunkInputs = { prompt: 'a cat jumps', steps: 2, controls: {} };
const NEVER = new AbortController().signal;

let model: RandomModel;
let networks: Networks;

before(async () => {
	model = await writeRandomModel();
	await poisonWord(model);
	const [width, height] = [model.spec.width, model.spec.height];
	networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width, height, threads: 1 });
});

after(async () => {
	await networks.close();
	await model[Symbol.asyncDispose]();
});

const openGenerator = (seed: number, firstChunkIndex = 0, through: Networks = networks): Generator =>
	new Generator(through, new PromptEncoder(through), performance.now.bind(performance), { seed, firstChunkIndex });

/** The bytes of the next chunk's frames, one after the other. */
const nextChunk = async (generator: Generator, inputs: Partial<ChunkInputs> = {}, signal = NEVER): Promise<Buffer> => {
	const frames: Uint8Array[] = [];
	await generator.generateChunk({ ...INPUTS, ...inputs }, (first, pictures) => {
		assert.equal(first, frames.length);
		frames.push(...pictures);
	}, signal);
	assert.equal(frames.length, framesPerChunk(model.spec));
	return Buffer.concat(frames);
};

/** The networks, telling of each call before it is made. */
const observed = (onCall: (name: 'text' | 'step' | 'clean' | 'decode') => void): Networks => ({
	...networks,
	encodePrompt: (text) => {
		onCall('text');
		return networks.encodePrompt(text);
	},
	step: (inputs) => {
		onCall(inputs.wantKeysAndValues ? 'clean' : 'step');
		return networks.step(inputs);
	},
	decodeLatent: (latent, memory) => {
		onCall('decode');
		return networks.decodeLatent(latent, memory);
	},
});

test('the same seed and inputs give the same frames, bit for bit, whatever else is generated in between', async () => {
	const [first, second, other] = [openGenerator(7), openGenerator(7), openGenerator(8)];
	const alone: Buffer[] = [];
	for (let chunk = 0; chunk < 4; chunk++) {
		alone.push(await nextChunk(first));
	}
	for (let chunk = 0; chunk < 4; chunk++) {
		await nextChunk(other, { prompt: 'the dog flies over the snow', steps: 1 });
		assert.ok((await nextChunk(second)).equals(alone[chunk] ?? Buffer.alloc(0)), `chunk ${chunk} differs`);
	}
	assert.ok(!alone[0]?.equals(alone[1] ?? Buffer.alloc(0)), 'two chunks of a stream are the same picture');
});

test('another seed, prompt, number of steps or control gives other frames', async () => {
	const variants = [
		await nextChunk(openGenerator(7)),
		await nextChunk(openGenerator(8)),
		await nextChunk(openGenerator(7), { prompt: 'the dog flies' }),
		await nextChunk(openGenerator(7), { steps: 1 }),
		await nextChunk(openGenerator(7), { steps: 4 }),
		await nextChunk(openGenerator(7), { controls: { steer_x: 1 } }),
		await nextChunk(openGenerator(7, 1)),
	];
	assert.equal(new Set(variants.map((bytes) => bytes.toString('latin1'))).size, variants.length);
});

test('the past counts: a chunk depends on the ones before it', async () => {
	const [first, second] = [openGenerator(7), openGenerator(7)];
	await nextChunk(first, { prompt: 'a cat' });
	await nextChunk(second, { prompt: 'the dog' });
	assert.ok(!(await nextChunk(first)).equals(await nextChunk(second)));
});

test('each latent\'s frames leave as soon as it is decoded, all of them before the clean pass', async () => {
	const order: string[] = [];
	const generator = openGenerator(7, 0, observed((name) => order.push(name)));
	await generator.generateChunk(INPUTS, (first) => order.push(`frames from ${first}`), NEVER);
	assert.deepEqual(order, ['text', 'step', 'step', 'decode', 'frames from 0', 'decode', 'frames from 4', 'clean']);
});

test('the event loop turns between any two runs of a network, however quickly they answer, so that messages are heard', async () => {
	// What the networks answer is recorded first, and then given back at once.
	const answers: unknown[] = [];
	const keep = async <T>(answer: Promise<T>): Promise<T> => {
		answers.push(await answer);
		return answer;
	};
	await nextChunk(openGenerator(7, 0, {
		...networks,
		encodePrompt: (text) => keep(networks.encodePrompt(text)),
		step: (inputs) => keep(networks.step(inputs)),
		decodeLatent: (latent, memory) => keep(networks.decodeLatent(latent, memory)),
	}));
	let turns = 0;
	let isOver = false;
	const turn = (): void => {
		turns += 1;
		if (!isOver) {
			setImmediate(turn);
		}
	};
	setImmediate(turn);
	const seen: number[] = [];
	const replay = <T>(): Promise<T> => {
		seen.push(turns);
		return Promise.resolve(answers.shift() as T);
	};
	await nextChunk(openGenerator(7, 0, { ...networks, encodePrompt: replay, step: replay, decodeLatent: replay }));
	isOver = true;
	assert.equal(seen.length, 6);
	for (const [index, count] of seen.entries()) {
		assert.ok(index === 0 || count > (seen[index - 1] ?? 0), `call ${index} came in the same turn as the one before: ${seen.join(' ')}`);
	}
});

test('the decoder remembers from chunk to chunk: frames are those of one unbroken decode', async () => {
	const latents: StateTensor[] = [];
	const generator = openGenerator(7, 0, {
		...networks,
		decodeLatent: (latent, memory) => {
			latents.push(latent);
			return networks.decodeLatent(latent, memory);
		},
	});
	const streamed = Buffer.concat([await nextChunk(generator), await nextChunk(generator), await nextChunk(generator)]);
	let memory = networks.emptyMemory();
	const unbroken: Uint8Array[] = [];
	for (const latent of latents) {
		const decoded = await networks.decodeLatent(latent, memory);
		memory = decoded.memory;
		unbroken.push(...decoded.frames);
	}
	assert.ok(Buffer.concat(unbroken).equals(streamed));
});

test('cancelled before any of its network runs, a chunk stops there and the stream is as if it had never begun', async () => {
	const expected = openGenerator(7);
	const [firstExpected, secondExpected] = [await nextChunk(expected), await nextChunk(expected)];
	// Two steps, two latents to decode, the clean pass; the prompt is cached by then.
	const runs = 5;
	for (let cancelAt = 1; cancelAt <= runs; cancelAt++) {
		let calls = 0;
		let armed: AbortController | undefined;
		const generator = openGenerator(7, 0, observed(() => {
			calls += 1;
			if (calls === cancelAt) {
				// Heard while the network runs, as a message would be.
				armed?.abort(new Error('cancelled'));
			}
		}));
		assert.ok((await nextChunk(generator)).equals(firstExpected));
		calls = 0;
		armed = new AbortController();
		await assert.rejects(nextChunk(generator, {}, armed.signal), /cancelled/u);
		assert.equal(calls, cancelAt, 'another network ran after the cancellation');
		assert.equal(generator.nextChunkIndex, 1);
		armed = undefined;
		assert.ok((await nextChunk(generator)).equals(secondExpected), `cancelled at ${cancelAt}: the next chunk differs`);
	}
});

test('numbers that are not finite are generation_invalid, and the stream goes on as if they had never been', async () => {
	const expected = openGenerator(7);
	const [first, second] = [await nextChunk(expected), await nextChunk(expected)];
	const generator = openGenerator(7);
	assert.ok((await nextChunk(generator)).equals(first));
	for (const steps of [1, 2, 4]) {
		const inputs = { ...INPUTS, prompt: `a ${POISONED}`, steps };
		await assert.rejects(generator.generateChunk(inputs, () => assert.fail('frames were shown'), NEVER), (error) => error instanceof TurbocastError && error.code === 'generation_invalid');
	}
	assert.ok((await nextChunk(generator)).equals(second));
});

test('inputs that cannot be are refused by name, and the stream goes on', async () => {
	const expected = await nextChunk(openGenerator(7));
	const generator = openGenerator(7);
	for (const [inputs, param] of [[{ steps: 3 }, 'steps'], [{ controls: { jump: 1 } }, 'controls.jump'], [{ controls: { steer_x: 2 } }, 'controls.steer_x']] as const) {
		await assert.rejects(nextChunk(generator, inputs), (error) => error instanceof TurbocastError && error.code === 'invalid_request' && error.param === param);
	}
	assert.ok((await nextChunk(generator)).equals(expected));
});

for (const [title, prompt] of [
	['empty', ''], ['white', ' \t\n'], ['10 kB long', 'a cat '.repeat(1700)], ['one word of 10 kB', 'x'.repeat(10_000)],
	['of emoji', '🐱🏖️🌙'], ['with an unpaired surrogate', 'a \ud800 cat'], ['with control characters', 'a\u0000cat\u202e'], ['of special tokens', '<pad> </s> <unk>'],
] as const) {
	test(`a prompt that is ${title} gives frames`, async () => {
		await nextChunk(openGenerator(7), { prompt });
	});
}

/** A generator, and the copy that a host keeps of its state. */
const copied = (generator: Generator, copy = new StreamCopy(model.spec)) => ({
	generator, copy,
	next: async (inputs: Partial<ChunkInputs> = {}): Promise<Buffer> => {
		const frames: Uint8Array[] = [];
		const { checkpoint } = await generator.generateChunk({ ...INPUTS, ...inputs }, (_, pictures) => frames.push(...pictures), NEVER);
		copy.take(structuredClone(checkpoint ?? assert.fail('no checkpoint')));
		return Buffer.concat(frames);
	},
});

test('a stream restored from the copy of another goes on bit for bit, at any chunk, also after the window is full and after a change of the past', async () => {
	const first = copied(openGenerator(7));
	for (let chunk = 0; chunk < 9; chunk++) {
		const { snapshot } = first.copy;
		const restored = openGenerator(7);
		if (snapshot !== undefined) {
			restored.restore(structuredClone(snapshot));
		}
		const inputs: Partial<ChunkInputs> = chunk === 5 ? { prompt: 'the dog flies', past: 'recache' } : chunk === 7 ? { past: 'forget' } : {};
		const bytes = await first.next(inputs);
		assert.ok((await nextChunk(restored, inputs)).equals(bytes), `chunk ${chunk} differs`);
		assert.equal(restored.nextChunkIndex, chunk + 1);
	}
});

test('the copy holds a window and no more, however long the stream is', async () => {
	const { next, copy } = copied(openGenerator(7));
	const held: number[][] = [];
	for (let chunk = 0; chunk < 6; chunk++) {
		await next();
		held.push((copy.snapshot?.chunks ?? []).map(({ chunkIndex }) => chunkIndex));
	}
	const perChunk = model.spec.stream.latents_per_chunk;
	const most = Math.ceil(model.spec.stream.sink_latents / perChunk) + Math.ceil((model.spec.stream.window_latents - perChunk) / perChunk);
	assert.ok(held.every((chunks) => chunks.length <= most), JSON.stringify(held));
	assert.equal(held.at(-1)?.at(-1), 5);
});

test('a snapshot without keys and values makes them again before the next chunk', async () => {
	const { next, copy, generator } = copied(openGenerator(7));
	await next();
	const { snapshot } = copy;
	assert.ok(snapshot !== undefined);
	const restored = openGenerator(7);
	// eslint-disable-next-line @typescript-eslint/no-unused-vars
	restored.restore({ ...snapshot, chunks: snapshot.chunks.map(({ layers: _, ...rest }) => rest) });
	// Nothing has left the window yet, so what is made again is what was there.
	assert.ok((await nextChunk(restored)).equals(await nextChunk(generator)));
});

test('recache with the same prompt before anything has left the window changes nothing; with another it changes the next chunk, which is another than without', async () => {
	const [kept, again, changed, unseen] = [openGenerator(7), openGenerator(7), openGenerator(7), openGenerator(7)];
	for (const generator of [kept, again, changed, unseen]) {
		await nextChunk(generator);
		await nextChunk(generator, { controls: { steer_x: 1 } });
	}
	assert.ok((await nextChunk(again, { past: 'recache' })).equals(await nextChunk(kept)), 'the masks and positions of recache are not those of the normal path');
	const [seen, notSeen] = [await nextChunk(changed, { prompt: 'the dog flies', past: 'recache' }), await nextChunk(unseen, { prompt: 'the dog flies' })];
	assert.ok(!seen.equals(notSeen));
});

test('forgetting the past is a new stream at that chunk, bit for bit; a seed counts from the chunk that brings it', async () => {
	const generator = openGenerator(7);
	await nextChunk(generator);
	assert.ok((await nextChunk(generator, { past: 'forget', seed: 9 })).equals(await nextChunk(openGenerator(9, 1))));
	const [same, other] = [openGenerator(7), openGenerator(7)];
	assert.ok((await nextChunk(same)).equals(await nextChunk(other)));
	assert.ok((await nextChunk(same, { seed: 7 })).equals(await nextChunk(other)));
	assert.ok(!(await nextChunk(same, { seed: 8 })).equals(await nextChunk(other)));
});

test('a chunk that was cancelled while the past was seen again leaves the past as it was', async () => {
	const expected = openGenerator(7);
	const generator = openGenerator(7);
	for (const each of [expected, generator]) {
		await nextChunk(each);
		await nextChunk(each);
	}
	for (const past of ['recache', 'forget'] as const) {
		const abort = new AbortController();
		const chunk = generator.generateChunk({ ...INPUTS, prompt: 'the dog flies', past }, () => abort.abort(new Error('cancelled')), abort.signal);
		await assert.rejects(chunk, /cancelled/u);
	}
	assert.ok((await nextChunk(generator)).equals(await nextChunk(expected)));
});

test('a mixture of prompts: one alone is itself, the weights count by their ratio, and each end is another picture than the middle', async () => {
	const of = (prompt: ChunkInputs['prompt']): Promise<Buffer> => nextChunk(openGenerator(7), { prompt });
	const mix = (cat: number, dog: number) => [{ text: 'a cat jumps', weight: cat }, { text: 'the dog flies over the snow', weight: dog }];
	const [cat, alone, half, double, dog] = [await of('a cat jumps'), await of([{ text: 'a cat jumps', weight: 3 }]), await of(mix(1, 1)), await of(mix(2, 2)), await of('the dog flies over the snow')];
	assert.ok(alone.equals(cat));
	assert.ok(half.equals(double));
	assert.ok(!half.equals(cat) && !half.equals(dog));
});
