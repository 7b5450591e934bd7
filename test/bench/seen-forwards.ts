/** What is run for a forward, fed to it and written by it: as the service has it, and as a stage of the bench has it. With the CPU provider, which takes the calls of CUDA. */
import assert from 'node:assert/strict';
import { measureStage, type Place, type Stage } from '../../src/bench/stage.js';
import { type DeviceBackend, type Feeds, isResident, type ResidentTensor, type Tensor } from '../../src/engine/backend.js';
import { Generator } from '../../src/engine/generator.js';
import { loadNetworks, type NetworksOptions } from '../../src/engine/networks.js';
import { PromptEncoder } from '../../src/engine/prompt-encoder.js';
import { native } from '../engine/native-device.js';

/** A run: its graph, where each tensor lies that it is fed and gives, and whether it is replayed. */
export type Seen = { readonly graph: string; readonly fed: readonly string[]; readonly given: readonly string[]; readonly isReplayed: boolean };

const faces = (tensors: { readonly [name: string]: Tensor | ResidentTensor }): string[] =>
	Object.entries(tensors).map(([name, tensor]) => `${name} ${isResident(tensor) ? 'there' : 'ours'} ${tensor.type} ${tensor.dims.join('x')}`).sort();

/** The same device; `seen` has the runs of its graphs in their order. */
export const spied = (device: DeviceBackend, seen: Seen[]): DeviceBackend => ({
	...device,
	load: async (graph, loading) => {
		const session = await device.load(graph, loading);
		const runInto: typeof session.runInto = (feeds, fetch, into, signal, recording) => {
			seen.push({ graph: graph.name, fed: faces(feeds), given: [...fetch.map((name) => `${name} ours`), ...faces(into)].sort(), isReplayed: recording !== undefined });
			return session.runInto(feeds, fetch, into, signal, recording);
		};
		return { ...session, runInto, run: (feeds: Feeds, fetch = graph.outputs.map(({ name }) => name), signal) => runInto(feeds, fetch, {}, signal) };
	},
	loadResident: async (graph, host = []) => {
		const session = await device.loadResident(graph, host);
		return { ...session, run: (feeds, signal) => {
			seen.push({ graph: graph.name, fed: faces(feeds), given: [...host], isReplayed: false });
			return session.run(feeds, signal);
		} };
	},
});

/** From a denoiser's run to the next, without the decoder's. */
const forwardsOf = (seen: readonly Seen[]): Seen[][] => {
	const groups: Seen[][] = [];
	for (const run of seen.filter(({ graph }) => !graph.endsWith('decoder'))) {
		// What a recorded forward is told is copied before it.
		const isFirst = run.graph === 'dit' && groups.at(-1)?.at(-1)?.graph !== 'copy' || run.graph === 'copy' && groups.at(-1)?.at(-1)?.graph !== 'copy';
		if (isFirst) {
			groups.push([]);
		}
		groups.at(-1)?.push(run);
	}
	return groups;
};

/** What an engine runs in the middle of a chunk of four steps over a full window, and in its clean pass. */
export const ofService = async (options: Omit<NetworksOptions, 'openDevice' | 'threads'>): Promise<{ readonly step: readonly Seen[]; readonly clean: readonly Seen[] }> => {
	const seen: Seen[] = [];
	const networks = await loadNetworks({ ...options, threads: 1, openDevice: () => spied(native(), seen) });
	const generator = new Generator(networks, new PromptEncoder(networks), () => performance.now(), { seed: 5, firstChunkIndex: 0 });
	// Recordings are made after eight forwards over a full window.
	for (let chunk = 0; chunk < 6; chunk++) {
		seen.splice(0);
		await generator.generateChunk({ prompt: 'a cat jumps', steps: 4, controls: {} }, () => undefined, new AbortController().signal, false);
	}
	const forwards = forwardsOf(seen);
	assert.equal(forwards.length, 5);
	generator.close();
	await networks.close();
	return { step: forwards[1] ?? [], clean: forwards[4] ?? [] };
};

/** The last run of a stage, which is one of those that are timed. */
export const ofBench = async (stage: Stage, place: Place, seen: Seen[]): Promise<readonly Seen[]> => {
	seen.splice(0);
	let now = 0;
	const report = await measureStage(stage, place, { limits: { copyBytesPerSecond: 1e9, flopsPerSecond: { float32: 1e9, float16: 1e9 } }, device: 'cuda', budgetMs: 10, nowMs: () => now++ });
	assert.ok(report.runs > 1 && report.shareOfLimit > 0, JSON.stringify(report));
	const forwards = forwardsOf(seen);
	assert.deepEqual(forwards.at(-1), forwards.at(-2));
	return forwards.at(-1) ?? [];
};
