/**
 * Steps of several streams as one forward: npm run bench -- batch [PROFILE] [ROUNDS]. A step with a full window of the embedded model; rounds of all sizes in turn, so
 * that what disturbs the machine disturbs all. PROFILE is cpu-fp32 or one of a card; cpu-int8 computes one at a time, and is timed alone for comparison.
 */
import { loadNetworks, type StepInputs } from '../src/engine/networks.js';
import { ENGINE_PROFILES, type EngineProfile } from '../src/engine/protocol.js';
import { usualStep } from '../src/engine/sizes-that-pay.js';
import { medianAndP95, printTable, printWhere } from './report.js';

const [wanted = 'cpu-fp32', rounds = '20'] = process.argv.slice(2);
const profile = ENGINE_PROFILES.find((each) => each === wanted) ?? ((): never => {
	throw new Error(`${wanted} is no profile: ${ENGINE_PROFILES.join(', ')}`);
})();

const timesOf = async (used: EngineProfile): Promise<ReadonlyMap<number, number[]>> => {
	const networks = await loadNetworks({ folder: 'models/toybox', profile: used, width: 128, height: 128, threads: 1, batch: 8 });
	const step = usualStep(networks, await networks.encodePrompt('a red cube'));
	const times = new Map<number, number[]>();
	for (let round = -1; round < Number(rounds); round++) {
		for (const size of [1, ...(networks.together?.sizes ?? [])]) {
			const startMs = performance.now();
			await (size === 1 ? networks.step(step) : networks.together?.steps(new Array<StepInputs>(size).fill(step)));
			if (round >= 0) {
				times.set(size, [...(times.get(size) ?? []), performance.now() - startMs]);
			}
		}
	}
	await networks.close();
	return times;
};

printWhere();
const rows: string[][] = [];
for (const used of new Set<EngineProfile>(['cpu-int8', profile])) {
	const times = await timesOf(used);
	// The fastest, which other programs disturbed least.
	const fastest = (size: number): number => Math.min(...times.get(size) ?? []);
	for (const [size, ms] of times) {
		rows.push([used, String(size), medianAndP95(ms), (fastest(size) / size).toFixed(1), (fastest(size) / size / fastest(1)).toFixed(2)]);
	}
}
printTable(['profile', 'streams', 'forward, ms (median / p95)', 'a stream of the fastest, ms', 'of one alone'], rows);
