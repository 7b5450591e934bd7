/**
 * Whether replayed recordings compute what the same runs compute without: the block of the self-test over a past in place, told one thing and another in turn. The same kernels over
 * the same numbers have the same bits, so nothing but equal is right.
 */
import type { DeviceSession, Feeds, ResidentTensor } from './backend.js';
import { openDevice } from './open-device.js';
import { stateType } from './profile.js';
import { mustRecord, recordForwards, type RecordingDevice, RUNS_OF_ALL_THREADS } from './recorded-forwards.js';
import { relativeError, type SelfTestRequest, streamWork, type Work } from './self-test.js';

export type RecordingTest = {
	/** Of the worst output; NaN when anything is not a number. */
	readonly relativeError: number;
	/** Fastest run, without recordings and with them, of as many. */
	readonly directMs: number;
	readonly recordedMs: number;
};

/** A session with a window and a velocity of its own. */
type Side = { readonly session: DeviceSession; readonly windows: Readonly<Record<string, ResidentTensor>>; readonly velocity: ResidentTensor };

const isOfWindow = (name: string): boolean => name.startsWith('window_');

const openSide = async (device: RecordingDevice, session: DeviceSession, { graph, feeds }: Work, type: 'float32' | 'float16'): Promise<Side> => {
	const windows: Record<string, ResidentTensor> = {};
	for (const [index, [name, { dims }]] of Object.entries(feeds).filter(([key]) => isOfWindow(key)).entries()) {
		windows[name] = await device.upload(Float32Array.from({ length: dims.reduce((product, size) => product * size, 1) }, (_, at) => Math.sin(at * (index + 1))), dims, type);
	}
	const dims = graph.outputs.find(({ name }) => name === 'velocity')?.dims as readonly number[];
	return { session, windows, velocity: await device.upload(new Float32Array(dims.reduce((product, size) => product * size, 1)), dims) };
};

/** Throws `device_unavailable` on a device that records nothing. May end the process when a driver fails: give it one of its own. */
export const runRecordingTest = async ({ profile, threads, kernels, open = openDevice, rounds = RUNS_OF_ALL_THREADS }: Omit<SelfTestRequest, 'runs'> & { /** For tests. */ readonly rounds?: number }, nowMs: () => number): Promise<RecordingTest> => {
	const opened = open(profile, threads, kernels);
	const closing: { readonly close: () => void | Promise<void> }[] = [opened];
	const own = <Owned extends { readonly close: () => void | Promise<void> }>(owned: Owned): Owned => {
		closing.push(owned);
		return owned;
	};
	const runOnce = async ({ session, windows, velocity }: Side, told: Feeds): Promise<number> => {
		const into = Object.fromEntries(Object.entries(windows).map(([name, tensor]) => [name.replace('window', 'held'), tensor]));
		const startMs = nowMs();
		await session.runInto({ ...told, ...windows }, [], { ...into, velocity });
		return nowMs() - startMs;
	};
	try {
		const device = mustRecord(opened);
		const works = [0, 20].map((salt) => streamWork(profile, device, 'in place', salt)) as [Work, Work];
		const sides: Side[] = [];
		for (const session of [own(await device.load(works[0].graph)), own(await recordForwards(device, await device.load(works[0].graph, { recordsRuns: true }), 0))]) {
			const side = await openSide(device, session, works[0], stateType(profile));
			[side.velocity, ...Object.values(side.windows)].forEach(own);
			sides.push(side);
		}
		const [direct, recorded] = sides as [Side, Side];
		const errors: number[] = [];
		const times: [number[], number[]] = [[], []];
		for (let round = 0; round < rounds; round++) {
			const told = Object.fromEntries(Object.entries((works[round % 2] as Work).feeds).filter(([name]) => !isOfWindow(name)));
			times[0].push(await runOnce(direct, told));
			times[1].push(await runOnce(recorded, told));
			const tensors = ({ velocity, windows }: Side): ResidentTensor[] => [velocity, ...Object.values(windows)];
			for (const [index, tensor] of tensors(direct).entries()) {
				errors.push(relativeError(await device.download(tensors(recorded)[index] as ResidentTensor), await device.download(tensor)));
			}
		}
		return { relativeError: errors.some(Number.isNaN) ? Number.NaN : Math.max(...errors), directMs: Math.min(...times[0]), recordedMs: Math.min(...times[1]) };
	} finally {
		for (const owned of closing.reverse()) {
			await owned.close();
		}
	}
};
