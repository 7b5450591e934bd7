import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Advanced, AdvanceInputs, Networks, PromptTensors, StepInputs, StepOutputs } from '../../src/engine/networks.js';
import { inTurn, Turn, Turns } from '../../src/engine/turns.js';

/** A step whose velocity names it, so that outputs which went to the wrong stream show. */
const stepOf = (name: number, wantKeysAndValues = false): StepInputs => ({
	latent: Float32Array.of(name), timesteps: [500], prompt: {} as PromptTensors, firstPosition: 0, pastK: [], pastV: [], pastTokens: 0, wantKeysAndValues,
});

/** Networks that note who was computed with whom; `sizes` of forwards for several. The clock moves by `tookMs` a forward. */
const notedNetworks = (sizes: readonly number[], takesCleanPasses = true) => {
	const forwards: number[][] = [];
	const clock = { nowMs: 0 };
	const forward = async (all: readonly StepInputs[]): Promise<StepOutputs[]> => {
		forwards.push(all.map(({ latent }) => latent[0] ?? Number.NaN));
		await new Promise((resolve) => setImmediate(resolve));
		clock.nowMs += 12;
		return all.map(({ latent }) => ({ velocity: Float32Array.from(latent) }));
	};
	const networks = {
		step: async (inputs: StepInputs) => (await forward([inputs]))[0] as StepOutputs,
		together: sizes.length === 0 ? undefined : { sizes, takesCleanPasses, steps: forward },
	} as unknown as Networks;
	return { networks, forwards, clock };
};

const begun = (turns: Turns, dueAtMs: number, signal = new AbortController().signal): Turn => {
	const turn = new Turn(turns);
	turn.begin(dueAtMs, signal);
	return turn;
};

test('who is due first goes first, whoever asked first; those due at once in the order of asking', async () => {
	const { networks, forwards } = notedNetworks([]);
	const turns = new Turns({ nowMs: () => 0 });
	const outputs = await Promise.all([[1, 300], [2, 100], [3, 100], [4, 200]].map(([name = 0, dueAtMs = 0]) => begun(turns, dueAtMs).step(networks, stepOf(name))));
	assert.deepEqual(forwards, [[2], [3], [4], [1]]);
	assert.deepEqual(outputs.map(({ velocity }) => velocity[0]), [1, 2, 3, 4]);
});

test('one in a hurry goes between two steps of another', async () => {
	const { networks, forwards } = notedNetworks([]);
	const turns = new Turns({ nowMs: () => 0 });
	const slow = begun(turns, 1000);
	const hurried = begun(turns, 10);
	let inHurry: Promise<unknown> = Promise.resolve();
	for (let step = 0; step < 4; step++) {
		if (step === 2) {
			inHurry = hurried.step(networks, stepOf(99));
		}
		await slow.step(networks, stepOf(step));
	}
	await inHurry;
	assert.deepEqual(forwards, [[0], [1], [99], [2], [3]]);
});

test('steps are computed together in the numbers there are forwards for, those due first before others', async () => {
	const { networks, forwards } = notedNetworks([2, 4]);
	const turns = new Turns({ nowMs: () => 0 });
	const outputs = await Promise.all([70, 60, 50, 40, 30, 20, 10].map((dueAtMs) => begun(turns, dueAtMs).step(networks, stepOf(dueAtMs))));
	assert.deepEqual(forwards, [[10, 20, 30, 40], [50, 60], [70]]);
	assert.deepEqual(outputs.map(({ velocity }) => velocity[0]), [70, 60, 50, 40, 30, 20, 10]);
	assert.deepEqual(turns.counts, { forwards: 3, steps: 7 });
});

test('streams that came apart come together again, step for step', async () => {
	const { networks, forwards } = notedNetworks([2]);
	const turns = new Turns({ nowMs: () => 0 });
	const run = async (turn: Turn, names: readonly number[]): Promise<void> => {
		for (const name of names) {
			await new Promise((resolve) => setImmediate(resolve));
			await turn.step(networks, stepOf(name));
		}
	};
	const first = begun(turns, 1);
	await first.step(networks, stepOf(0));
	await Promise.all([run(first, [1, 2, 3]), run(begun(turns, 2), [11, 12, 13])]);
	assert.deepEqual(forwards, [[0], [1, 11], [2, 12], [3, 13]]);
});

test('what brings others to their steps comes before a step that could have company, and in its order where none could', async () => {
	for (const [sizes, expected] of [[[2], ['prompt', '1,2']], [[], ['1', 'prompt', '2']]] as const) {
		const { networks, forwards } = notedNetworks(sizes);
		const turns = new Turns({ nowMs: () => 0 });
		const seen: string[] = [];
		const noted: Networks = { ...networks, step: (inputs) => {
			seen.push(`${inputs.latent[0]}`);
			return networks.step(inputs);
		} };
		const second = begun(turns, 20);
		await Promise.all([
			begun(turns, 10).step(noted, stepOf(1)),
			second.alone(() => Promise.resolve(seen.push('prompt')), true).then(() => second.step(noted, stepOf(2))),
		]);
		assert.deepEqual(sizes.length === 0 ? seen : [...seen, ...forwards.map((names) => names.join())], expected);
	}
});

test('clean passes and steps of other networks are not joined where they cannot be', async () => {
	const own = notedNetworks([2], false);
	const other = notedNetworks([2]);
	const turns = new Turns({ nowMs: () => 0 });
	await Promise.all([
		begun(turns, 1).step(own.networks, stepOf(1)), begun(turns, 2).step(own.networks, stepOf(2, true)),
		begun(turns, 3).step(other.networks, stepOf(3)), begun(turns, 4).step(own.networks, stepOf(4)), begun(turns, 5).step(other.networks, stepOf(5, true)),
	]);
	assert.deepEqual(own.forwards, [[1, 4], [2]]);
	assert.deepEqual(other.forwards, [[3, 5]]);
});

test('steps whose latents stay on a device are computed together with their like, each stream gets its own, and others go between two of them', async () => {
	const { networks, forwards } = notedNetworks([2]);
	const wanted: number[][] = [];
	const advance = (all: readonly AdvanceInputs[]): Promise<Advanced[]> => {
		wanted.push(all.map(({ firstPosition }) => firstPosition));
		return Promise.resolve(all.map(({ firstPosition }) => ({ latent: { type: 'float32', dims: [firstPosition], isResident: true, close: () => undefined }, frames: [] })));
	};
	let settled = 0;
	const settle = (): Promise<void> => {
		settled += 1;
		return Promise.resolve();
	};
	const onDevice = { ...networks, resident: { advance, settle } } as unknown as Networks;
	const turns = new Turns({ nowMs: () => 0 });
	const advanceOf = (firstPosition: number): AdvanceInputs => ({ ...stepOf(0), firstPosition, factors: { latent: 1, velocity: -1, noise: 0 }, freshNoise: () => new Float32Array(1), isLast: false });
	const cancel = new AbortController();
	const cancelled = inTurn(onDevice, begun(turns, 9, cancel.signal)).resident?.advance([advanceOf(9)]);
	const [hurried, one, two] = [begun(turns, 1), begun(turns, 2), begun(turns, 3)];
	const advanced = [two, one].map((turn, index) => inTurn(onDevice, turn).resident?.advance([advanceOf(3 - index)]) ?? assert.fail('no device'));
	cancel.abort(new Error('enough'));
	await Promise.all([assert.rejects(cancelled as Promise<unknown>, /enough/u), hurried.step(onDevice, stepOf(1))]);
	assert.deepEqual((await Promise.all(advanced)).map((all) => all[0]?.latent.dims), [[3], [2]]);
	assert.deepEqual([forwards, wanted], [[[1]], [[2, 3]]]);
	assert.equal(settled, 1, 'the device is waited for when somebody else is next, and not after the last');
	// Inside of what it does alone a stream has its turn already.
	await one.alone(async () => assert.deepEqual((await one.advance(onDevice, advanceOf(7))).latent.dims, [7]));
	assert.deepEqual(turns.counts, { forwards: 2, steps: 3 });
});

test('nobody comes between what is done alone, and what it asks for itself it gets', async () => {
	const { networks, forwards } = notedNetworks([2]);
	const turns = new Turns({ nowMs: () => 0 });
	const turn = begun(turns, 50);
	const own = inTurn(networks, turn);
	const section = own.alone?.(async () => {
		await own.step(stepOf(1));
		await own.alone?.(async () => void await own.step(stepOf(2)));
	});
	await new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(resolve))));
	await Promise.all([section, begun(turns, 0).step(networks, stepOf(9))]);
	assert.deepEqual(forwards.filter(([name]) => name !== 9), [[1], [2]]);
	assert.equal(Math.abs(forwards.findIndex(([name]) => name === 1) - forwards.findIndex(([name]) => name === 2)), 1);
});

test('one that waits is cancelled at once; a failure is told to those it concerns, and the others go on', async () => {
	const { networks, forwards } = notedNetworks([]);
	const turns = new Turns({ nowMs: () => 0 });
	const cancel = new AbortController();
	const waiting = begun(turns, 5, cancel.signal).step(networks, stepOf(5));
	const failing = begun(turns, 1).alone(() => Promise.reject(new Error('no card')));
	const last = begun(turns, 9).step(networks, stepOf(9));
	cancel.abort(new Error('enough'));
	await assert.rejects(waiting, /enough/u);
	await assert.rejects(failing, /no card/u);
	assert.equal((await last).velocity[0], 9);
	assert.deepEqual(forwards, [[9]]);
	const late = new Turn(turns);
	late.begin(0, cancel.signal);
	await assert.rejects(late.step(networks, stepOf(1)), /enough/u);
});

test('waiting is nobody’s own time, and a shared forward costs each its part', async () => {
	const { networks, clock } = notedNetworks([2]);
	const turns = new Turns({ nowMs: () => clock.nowMs });
	const [one, two, three] = [begun(turns, 1), begun(turns, 2), begun(turns, 3)];
	const before = [one, two, three].map((turn) => turn.nowMs());
	await Promise.all([one, two, three].map((turn, name) => turn.step(networks, stepOf(name))));
	// Two together for 12 ms, then the third alone for 12 ms; the first two have not asked again.
	assert.deepEqual([one.lostMs, two.lostMs, three.lostMs], [6, 6, 12]);
	assert.equal(three.nowMs() - (before[2] ?? 0), 12);

	// Whoever is told of the end of work alone finds the waiting counted already: its clock never goes back.
	const clocks = await Promise.all([one, two].map((turn) => turn.alone(async () => {
		await networks.step(stepOf(0));
	}).then(() => turn.nowMs())));
	await new Promise((resolve) => setImmediate(resolve));
	assert.deepEqual([one, two].map((turn) => turn.nowMs() >= (clocks[turn === one ? 0 : 1] ?? 0)), [true, true]);
});
