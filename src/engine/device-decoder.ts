/** The decoder of a model on a device with memory of its own: what it remembers of a stream stays there, and the bytes of pictures come back. */
import { i420Bytes } from '../base/frame.js';
import { copyGraph, type StateType, zerosGraph } from '../model/state-graphs.js';
import { TurbocastError } from '../protocol/errors.js';
import { closeState, type DeviceBackend, type Feeds, isResident, type ResidentSession, type ResidentTensor, type StateTensor } from './backend.js';
import type { DecoderMemory, Networks } from './networks.js';
import { stateFeed } from './resident-kv.js';

type Shape = { readonly name: string; readonly dims: readonly number[] };
type Tensors = { readonly [name: string]: ResidentTensor };

export type DeviceDecoderOptions = {
	readonly device: DeviceBackend;
	/** A decoder that gives `frames` as words, and `magnitude`, to the host: for the first latent of a stream, which no memory comes with, or for later ones. */
	readonly decoder: (isFirst: boolean) => Promise<ResidentSession>;
	/** Whether a decoder may be closed before its memory is. The library may free what lies on a device with the help of the session that made it. */
	readonly closesDecoders: boolean;
	readonly memoryType: StateType;
	/** A decoder takes and leaves those that are its own; what none has left yet is zeros. */
	readonly memories: readonly Shape[];
	/** Of a latent frame. */
	readonly latentDims: readonly number[];
	/** Pictures of the first latent of a stream, the last ones of those that its decoder gives. */
	readonly framesAtStart: number;
	/** Of a picture. */
	readonly width: number;
	readonly height: number;
};

export type DeviceDecoder = Pick<Networks, 'decodeLatent'> & {
	/** Frees what it made; the decoders are closed by whoever loaded them. */
	readonly close: () => Promise<void>;
};

const isEmpty = (tensor: StateTensor): boolean => !isResident(tensor) && tensor.length === 0;

const forget = (tensors: Tensors): void => closeState(Object.values(tensors));

export const createDeviceDecoder = (options: DeviceDecoderOptions): DeviceDecoder => {
	const { device, memories, memoryType } = options;
	const smallSessions = new Map<string, ResidentSession>();
	/** Small graphs over memory of the decoder, by what they do and the names of that. */
	const small = async (graph: typeof copyGraph | typeof zerosGraph, tensors: readonly Shape[]): Promise<ResidentSession> => {
		const key = [graph === copyGraph ? 'copy' : 'zeros', ...tensors.map(({ name }) => name)].join();
		const session = smallSessions.get(key) ?? await device.loadResident(graph(tensors, memoryType));
		smallSessions.set(key, session);
		return session;
	};
	/** The same in tensors that live as long as these networks; those of before are closed. */
	const moved = async (left: Tensors): Promise<Tensors> => {
		try {
			const tensors = Object.entries(left);
			const session = await small(copyGraph, tensors.map(([name, { dims }]) => ({ name, dims })));
			return (await session.run(Object.fromEntries(tensors.map(([name, tensor]) => [`from.${name}`, tensor])))).resident;
		} finally {
			forget(left);
		}
	};
	/** Memory that nothing has left yet, made where it is read. */
	const zeros = async (missing: readonly Shape[]): Promise<Tensors> =>
		(missing.length === 0 ? {} : (await (await small(zerosGraph, missing)).run({ zero: stateFeed(new Float32Array(1), [1], memoryType) })).resident);
	/** What `session` remembers, of `memory` or zeros. */
	const decodeWith = async (session: ResidentSession, latent: StateTensor, memory: DecoderMemory): ReturnType<ResidentSession['run']> => {
		const wanted = memories.map((shape, index) => ({ ...shape, tensor: memory[index] })).filter(({ name }) => session.inputs.some((input) => input.name === `memory.${name}`));
		const known = wanted.flatMap(({ name, dims, tensor }): [string, Feeds[string]][] => (tensor === undefined || isEmpty(tensor) ? [] : [[`memory.${name}`, stateFeed(tensor, dims, memoryType)]]));
		const made = await zeros(wanted.flatMap(({ name, dims, tensor }) => (tensor === undefined || isEmpty(tensor) ? [{ name: `memory.${name}`, dims }] : [])));
		try {
			return await session.run({ latent: stateFeed(latent, options.latentDims, 'float32'), ...Object.fromEntries(known), ...made });
		} finally {
			forget(made);
		}
	};
	const decodeLatent: DeviceDecoder['decodeLatent'] = async (latent, memory) => {
		const isFirst = memory.length === 0;
		const { host, resident } = await decodeWith(await options.decoder(isFirst), latent, memory);
		if (!Number.isFinite(host['magnitude']?.data[0])) {
			closeState(Object.values(resident));
			throw new TurbocastError('generation_invalid', 'The network produced numbers that are not a picture (latents); try again, or change the prompt or the seed.');
		}
		const words = host['frames']?.data as Int32Array;
		const bytes = i420Bytes(options.width, options.height);
		const count = words.byteLength / bytes;
		const skipped = isFirst ? count - options.framesAtStart : 0;
		const left = options.closesDecoders ? await moved(resident) : resident;
		return {
			frames: Array.from({ length: count - skipped }, (_, frame) => Uint8Array.from(new Uint8Array(words.buffer, words.byteOffset + (skipped + frame) * bytes, bytes))),
			memory: memories.map(({ name }) => left[`memory_out.${name}`] ?? new Float32Array(0)),
		};
	};
	return {
		decodeLatent,
		close: async () => {
			for (const session of smallSessions.values()) {
				await session.close();
			}
			smallSessions.clear();
		},
	};
};
