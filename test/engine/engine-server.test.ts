import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { EngineServer } from '../../src/engine/engine-server.js';
import { loadNetworks, type Networks } from '../../src/engine/networks.js';
import { type EngineEvent, type EngineRequest } from '../../src/engine/protocol.js';
import { writeRandomModel, type RandomModel } from '../model/random-model.js';
import { poisonWord, POISONED } from './poisoned-model.js';

const INPUTS = { prompt: 'a cat jumps', steps: 1, controls: {} };

let model: RandomModel;
let networks: Networks;

before(async () => {
	model = await writeRandomModel();
	await poisonWord(model);
	const { width, height } = model.spec;
	networks = await loadNetworks({ folder: model.path, profile: 'cpu-fp32', width, height, threads: 1 });
});

after(async () => {
	await networks.close();
	await model[Symbol.asyncDispose]();
});

type Served = {
	readonly server: EngineServer;
	readonly events: EngineEvent[];
	readonly prompts: string[];
	/** Resolves with the first event, past or to come, that `wanted` accepts. */
	readonly until: (wanted: (event: EngineEvent) => boolean) => Promise<EngineEvent>;
};

const serve = (onEvent: (event: EngineEvent, server: EngineServer) => void = () => undefined, prepare?: Networks['prepare'], maxStreams?: number): Served => {
	const events: EngineEvent[] = [];
	const prompts: string[] = [];
	const listeners = new Set<() => void>();
	const server: EngineServer = new EngineServer({
		maxStreams,
		load: ({ width, height }) => {
			assert.deepEqual([width, height], [networks.width, networks.height]);
			return Promise.resolve({
				...networks, prepare,
				encodePrompt: (text: string) => {
					prompts.push(text);
					return networks.encodePrompt(text);
				},
				// They belong to all tests of this file.
				close: () => Promise.resolve(),
			});
		},
		send: (event) => {
			events.push(event);
			onEvent(event, server);
			for (const listener of listeners) {
				listener();
			}
		},
		nowMs: () => performance.now(),
	});
	const until = (wanted: (event: EngineEvent) => boolean): Promise<EngineEvent> =>
		new Promise((resolve) => {
			const look = (): void => {
				const found = events.find(wanted);
				if (found !== undefined) {
					listeners.delete(look);
					resolve(found);
				}
			};
			listeners.add(look);
			look();
		});
	return { server, events, prompts, until };
};

const open = (stream: number, seed = 7): EngineRequest => ({ type: 'stream.open', stream, seed, width: model.spec.width, height: model.spec.height, firstChunkIndex: 0, checkpoints: false });
const generate = (stream: number, chunkIndex: number, inputs = INPUTS): EngineRequest => ({ type: 'chunk.generate', stream, chunkIndex, inputs });
const isVerdict = (event: EngineEvent): boolean => event.type === 'chunk.done' || event.type === 'chunk.failed' || event.type === 'chunk.cancelled';
const verdicts = (events: readonly EngineEvent[]): string[] =>
	events.filter(isVerdict).map((event) => ('stream' in event ? `${event.type} ${event.stream}.${event.chunkIndex}` : event.type));

test('streams take turns, chunk by chunk', async () => {
	const { server, events, until } = serve((event, self) => {
		if (event.type === 'chunk.done' && event.chunkIndex < 2) {
			self.receive(generate(event.stream, event.chunkIndex + 1));
		}
	});
	server.receive(open(1));
	server.receive(open(2));
	server.receive(generate(1, 0));
	server.receive(generate(2, 0));
	await until((event) => event.type === 'chunk.done' && event.stream === 2 && event.chunkIndex === 2);
	assert.deepEqual(verdicts(events), ['1.0', '2.0', '1.1', '2.1', '1.2', '2.2'].map((name) => `chunk.done ${name}`));
	await server.close();
});

test('a stream beside others makes the frames it makes alone', async () => {
	const run = async (streams: readonly number[]): Promise<Buffer> => {
		const { server, events, until } = serve();
		for (const stream of streams) {
			server.receive(open(stream, stream));
		}
		for (let chunk = 0; chunk < 2; chunk++) {
			for (const stream of streams) {
				server.receive(generate(stream, chunk, { ...INPUTS, prompt: `the dog ${stream}` }));
			}
			await until((event) => event.type === 'chunk.done' && event.chunkIndex === chunk && event.stream === streams.at(-1));
		}
		await server.close();
		return Buffer.concat(events.flatMap((event) => (event.type === 'frames' && event.stream === 2 ? event.frames : [])));
	};
	const alone = await run([2]);
	assert.ok(alone.length > 0);
	assert.ok((await run([1, 2, 3])).equals(alone));
});

test('a chunk that is being made is cancelled, one that waits is cancelled at once, and both may be asked for again', async () => {
	const { server, events, until } = serve((event, self) => {
		if (event.type === 'frames' && event.stream === 1 && events.length === 1) {
			self.receive({ type: 'chunk.cancel', stream: 2 });
			self.receive({ type: 'chunk.cancel', stream: 1 });
		}
	});
	server.receive(open(1));
	server.receive(open(2));
	server.receive(generate(1, 0));
	server.receive(generate(2, 0));
	await until((event) => event.type === 'chunk.cancelled' && event.stream === 1);
	assert.deepEqual(verdicts(events), ['chunk.cancelled 2.0', 'chunk.cancelled 1.0']);
	server.receive(generate(1, 0));
	server.receive(generate(2, 0));
	await until((event) => event.type === 'chunk.done' && event.stream === 2);
	assert.deepEqual(verdicts(events).slice(2), ['chunk.done 1.0', 'chunk.done 2.0']);
	await server.close();
});

test('whatever is wrong with a request is an event of that request, and the rest goes on', async () => {
	const { server, events, until } = serve();
	server.receive(open(1));
	server.receive({ type: 'chunk.cancel', stream: 77 });
	server.receive({ type: 'stream.close', stream: 77 });
	for (const [request, code] of [
		[generate(77, 0), 'invalid_state'],
		[generate(1, 5), 'invalid_state'],
		[generate(1, 0, { ...INPUTS, steps: 9 }), 'invalid_request'],
		[generate(1, 0, { ...INPUTS, controls: { jump: 1 } }), 'invalid_request'],
		[generate(1, 0, { ...INPUTS, prompt: `a ${POISONED}` }), 'generation_invalid'],
		[generate(1, 0, { ...INPUTS, prompt: 5 as unknown as string }), 'internal'],
	] as const) {
		const before = events.length;
		server.receive(request);
		await until(() => events.length > before);
		const event = events.at(-1);
		assert.ok(event?.type === 'chunk.failed' && event.code === code, `${JSON.stringify(request)} gave ${JSON.stringify(event)}`);
	}
	const before = verdicts(events).length;
	server.receive(generate(1, 0));
	server.receive(generate(1, 0));
	await until((event) => event.type === 'chunk.done');
	assert.deepEqual(verdicts(events).slice(before), ['chunk.failed 1.0', 'chunk.done 1.0']);
	await server.close();
});

test('a prompt that was prepared is not encoded again when a chunk brings it', async () => {
	const { server, prompts, until } = serve();
	server.receive(open(1));
	server.receive(generate(1, 0));
	await until((event) => event.type === 'chunk.done' && event.chunkIndex === 0);
	server.receive({ type: 'prompt.prepare', prompt: 'the dog flies' });
	server.receive(generate(1, 1, { ...INPUTS, prompt: 'the dog flies' }));
	await until((event) => event.type === 'chunk.done' && event.chunkIndex === 1);
	assert.deepEqual(prompts, ['a cat jumps', 'the dog flies']);
	await server.close();
});

test('of too many prepared prompts the newest are kept, and one that cannot be encoded harms nobody', async () => {
	const { server, prompts, until } = serve();
	server.receive(open(1));
	server.receive(generate(1, 0));
	for (let index = 0; index < 50; index++) {
		server.receive({ type: 'prompt.prepare', prompt: `a cat ${index}` });
	}
	server.receive({ type: 'prompt.prepare', prompt: 5 as unknown as string });
	await until((event) => event.type === 'chunk.done' && event.chunkIndex === 0);
	server.receive(generate(1, 1));
	await until((event) => event.type === 'chunk.done' && event.chunkIndex === 1);
	// The one that is no prompt took the place of an eighth.
	assert.equal(prompts.length, 1 + 7);
	assert.equal(prompts.at(-1), 'a cat 49');
	await server.close();
});

test('a closed stream is gone: its chunk stops, and it takes no more', async () => {
	const { server, events, until } = serve();
	server.receive(open(1));
	server.receive(generate(1, 0));
	server.receive({ type: 'stream.close', stream: 1 });
	server.receive(generate(1, 0));
	await until((event) => event.type === 'chunk.failed');
	await server.close();
	assert.ok(!verdicts(events).includes('chunk.done 1.0'));
});

test('beyond the bound a stream does not exist', async () => {
	const { server, events } = serve(undefined, undefined, 3);
	for (let stream = 0; stream <= 3; stream++) {
		server.receive(open(stream));
	}
	server.receive(generate(3, 0));
	const event = events.at(-1);
	assert.ok(event?.type === 'chunk.failed' && event.code === 'invalid_state');
	await server.close();
});

test('closing ends the chunk at hand within a step and starts no other', async () => {
	const { server, events, until } = serve();
	server.receive(open(1));
	server.receive(open(2));
	server.receive(generate(1, 0));
	server.receive(generate(2, 0));
	await until((event) => event.type === 'frames');
	await server.close();
	await server.close();
	server.receive(generate(1, 0));
	assert.deepEqual(verdicts(events), ['chunk.cancelled 2.0', 'chunk.cancelled 1.0', 'chunk.failed 1.0']);
});

test('warming up runs every graph, with a past and without, and says how long it took', async () => {
	const { server, events } = serve();
	const { loadMs, warmMs } = await server.warm(model.spec.width, model.spec.height);
	assert.ok(loadMs >= 0 && warmMs > 0);
	assert.deepEqual(events, []);
	await server.close();
});

test('weights whose very first chunk is not a picture are a model_invalid', async () => {
	await using poisoned = await writeRandomModel({ changes: { examples: [`a ${POISONED}`] } });
	await poisonWord(poisoned);
	const server = new EngineServer({
		load: (size) => loadNetworks({ folder: poisoned.path, profile: 'cpu-fp32', threads: 1, ...size }), send: () => undefined, nowMs: () => 0,
	});
	await assert.rejects(server.warm(poisoned.spec.width, poisoned.spec.height), { code: 'model_invalid' });
	await server.close();
});

test('what a first chunk would wait for is loaded while nothing is asked for; a chunk goes before what is left of it', async () => {
	const rounds: string[] = [];
	const { server, events, until } = serve(undefined, async function* () {
		for (const round of ['text', 'denoiser', 'decoder']) {
			rounds.push(round);
			if (round === 'denoiser') {
				server.receive(open(1));
				server.receive(generate(1, 0));
			}
			yield await Promise.resolve(undefined);
		}
	});
	await server.warm(model.spec.width, model.spec.height);
	server.prepare();
	await until(isVerdict);
	assert.deepEqual([verdicts(events), rounds], [['chunk.done 1.0'], ['text', 'denoiser']]);
	await server.close();
});

test('what cannot be loaded ahead is not lost on anybody: the next chunk is made or says why', async () => {
	let attempts = 0;
	const { server, events, until } = serve(undefined, async function* () {
		attempts += 1;
		return Promise.reject(new Error('the disk is gone'));
	});
	await server.warm(model.spec.width, model.spec.height);
	server.prepare();
	server.receive(open(1));
	server.receive(generate(1, 0));
	await until(isVerdict);
	assert.deepEqual([verdicts(events), attempts], [['chunk.done 1.0'], 1]);
	await server.close();
});
