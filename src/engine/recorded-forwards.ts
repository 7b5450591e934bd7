/**
 * Forwards that a device records once and replays after that (CUDA graphs): one launch for a whole network instead of one for each of its operators. A replay reads and writes the
 * addresses of the run that was recorded. So what a forward is told (latent, times, positions, controls, text, where its frames go) is first written to places of its own, by graphs that
 * only copy; windows of keys and values lie still by themselves (window-kv.ts), and which they are tells one recording from another.
 */
import type { Graph, GraphValue } from '../model/graph.js';
import { ELEMENT_BYTES } from '../model/onnx-proto.js';
import { copyGraph } from '../model/state-graphs.js';
import { TurbocastError } from '../protocol/errors.js';
import { type DeviceBackend, type DeviceSession, type Feeds, isResident, type ResidentTensor, type Tensor } from './backend.js';
import { canPlace, type PlacingDevice } from './window-kv.js';

/** Runs over the same tensors before those are recorded. While a window grows every chunk has others, for as many forwards as it has steps, and one. */
export const RUNS_BEFORE_RECORDING = 8;
/** Recordings belong to the threads that made them, and runs come to any of four: after so many each has made one and replayed it. */
export const RUNS_OF_ALL_THREADS = 16;
/** Of a network. They are never given back, and nobody says which stream has ended; the forwards of others run as they are. */
export const MAX_RECORDINGS = 64;
/** Sets of tensors whose runs are counted; the oldest are forgotten. */
const MAX_COUNTED = 256;

/** A device whose tensors have addresses that stay. */
export type RecordingDevice = PlacingDevice & Required<Pick<DeviceBackend, 'address'>>;

export const canRecord = (device: DeviceBackend): device is RecordingDevice => canPlace(device) && device.address !== undefined;

/** Throws `device_unavailable` for a device that records nothing. */
export const mustRecord = (device: DeviceBackend): RecordingDevice => {
	if (!canRecord(device)) {
		throw new TurbocastError('device_unavailable', `${device.name} records nothing`);
	}
	return device;
};

type FixedValue = Omit<GraphValue, 'dims'> & { readonly dims: readonly number[] };
type Tensors = { readonly [name: string]: ResidentTensor };

const hasFixedSize = (value: GraphValue): value is FixedValue => value.dims.every((size) => typeof size === 'number');

/** Keys and values of a prompt: large, and the same from step to step. */
const OF_TEXT = /^cross_/u;

const makePlace = async (device: RecordingDevice, { type, dims }: FixedValue): Promise<ResidentTensor> => {
	const words = Math.ceil(dims.reduce((bytes, size) => bytes * size, ELEMENT_BYTES[type]) / ELEMENT_BYTES.float32);
	const memory = await device.upload(new Float32Array(words), [words]);
	try {
		return device.view(memory, dims, type);
	} finally {
		memory.close();
	}
};

/** Inputs of a network that are written together where it reads them. */
type Told = { readonly places: Tensors; readonly write: (feeds: Feeds) => Promise<void>; readonly close: () => Promise<void> };

const loadTold = async (device: RecordingDevice, inputs: readonly FixedValue[]): Promise<Told> => {
	const session = await device.load(copyGraph(inputs, 'float32'));
	const places: Record<string, ResidentTensor> = {};
	const close = async (): Promise<void> => {
		Object.values(places).forEach((place) => place.close());
		await session.close();
	};
	try {
		for (const input of inputs) {
			places[input.name] = await makePlace(device, input);
		}
	} catch (error) {
		await close();
		throw error;
	}
	/** What is there, if all of it came from the device, where nobody changes a tensor that is fed. */
	let written: readonly (Feeds[string] | undefined)[] = [];
	return {
		places, close,
		write: async (feeds) => {
			const given = inputs.map(({ name }) => feeds[name]);
			if (given.every((tensor, index) => tensor !== undefined && isResident(tensor) && tensor === written[index])) {
				return;
			}
			written = [];
			await session.runInto(Object.fromEntries(inputs.flatMap(({ name }, index) => (given[index] === undefined ? [] : [[`from.${name}`, given[index]]]))), [], places);
			written = given;
		},
	};
};

/** Numbers of recordings, by what they read and write. */
class Recordings {
	readonly #runsBefore: number;
	readonly #runs = new Map<string, number>();
	readonly #numbers = new Map<string, number>();

	constructor(runsBefore: number) {
		this.#runsBefore = runsBefore;
	}

	/** `undefined` for a run that is not to be recorded. */
	of(key: string): number | undefined {
		const known = this.#numbers.get(key);
		if (known !== undefined || this.#numbers.size === MAX_RECORDINGS) {
			return known;
		}
		const runs = (this.#runs.get(key) ?? 0) + 1;
		this.#runs.set(key, runs);
		if (runs <= this.#runsBefore) {
			const [oldest] = this.#runs.keys();
			if (this.#runs.size > MAX_COUNTED && oldest !== undefined) {
				this.#runs.delete(oldest);
			}
			return undefined;
		}
		this.#runs.delete(key);
		this.#numbers.set(key, this.#numbers.size + 1);
		return this.#numbers.size;
	}
}

/**
 * The same network, fed from places of its own. Runs that leave all of their outputs on the device are recorded after the first few over the same tensors; such a run is not ended in the
 * middle, but throws the reason of its signal when it is over. Takes over `session`. Not for concurrent use.
 */
export const recordForwards = async (device: RecordingDevice, session: DeviceSession, runsBefore = RUNS_BEFORE_RECORDING): Promise<DeviceSession> => {
	const fixed = session.inputs.filter(hasFixedSize);
	const told: Told[] = [];
	const close = async (): Promise<void> => {
		for (const part of told.splice(0)) {
			await part.close();
		}
		await session.close();
	};
	try {
		for (const inputs of [fixed.filter(({ name }) => OF_TEXT.test(name)), fixed.filter(({ name }) => !OF_TEXT.test(name))].filter(({ length }) => length > 0)) {
			told.push(await loadTold(device, inputs));
		}
	} catch (error) {
		await close();
		throw error;
	}
	const places: Tensors = Object.assign({}, ...told.map((part) => part.places)) as Tensors;
	const recordings = new Recordings(runsBefore);
	/** The number of the recording of a run, if it is to be one: all that it reads and writes lies on the device then. */
	const recordingOf = (still: readonly (Tensor | ResidentTensor)[], into: Tensors): number | undefined => {
		const tensors = [...still, ...Object.values(into)].filter(isResident);
		const isWhole = Object.keys(into).length === session.outputs.length && tensors.length === still.length + session.outputs.length;
		return isWhole ? recordings.of(tensors.map((tensor) => `${device.address(tensor)}:${tensor.dims.join()}`).join(' ')) : undefined;
	};
	const runInto: DeviceSession['runInto'] = async (feeds, fetch, into, signal) => {
		const still = Object.fromEntries(Object.entries(feeds).filter(([name]) => places[name] === undefined));
		for (const part of told) {
			await part.write(feeds);
		}
		const recording = fetch.length === 0 ? recordingOf(Object.values(still), into) : undefined;
		if (recording === undefined) {
			return session.runInto({ ...still, ...places }, fetch, into, signal);
		}
		signal?.throwIfAborted();
		// Ended while it is recorded it would leave the device recording; and a replay has no middle.
		const results = await session.runInto({ ...still, ...places }, [], into, undefined, recording);
		signal?.throwIfAborted();
		return results;
	};
	return { ...session, runInto, run: (feeds, fetch = session.outputs.map(({ name }) => name), signal) => runInto(feeds, fetch, {}, signal), close };
};

/** The denoiser of streams, recorded where that is wanted and the device can. */
export const loadForward = async (device: DeviceBackend, graph: Graph, isRecorded = false): Promise<DeviceSession> =>
	(isRecorded && canRecord(device) ? recordForwards(device, await device.load(graph, { recordsRuns: true })) : device.load(graph));
