/** A device whose tensors are known for as long as they live. */
import type { DeviceBackend, ResidentTensor } from '../../src/engine/backend.js';

export const bytesOf = ({ type, dims }: ResidentTensor): number => (type === 'float16' ? 2 : 4) * dims.reduce((product, size) => product * size, 1);

const watch = (live: Set<ResidentTensor>, tensor: ResidentTensor): void => {
	const { close } = tensor;
	live.add(tensor);
	Object.assign(tensor, { close: () => {
		live.delete(tensor);
		close.call(tensor);
	} });
};

/** The same device; `live` has every tensor that a graph left there and nobody has closed, and windows of keys and values, by their dimensions. */
export const watched = (device: DeviceBackend, live: Set<ResidentTensor>, windowDims?: readonly number[]): DeviceBackend => ({
	...device,
	upload: async (data, dims, type) => {
		const tensor = await device.upload(data, dims, type);
		if (windowDims !== undefined && String(dims) === String(windowDims)) {
			watch(live, tensor);
		}
		return tensor;
	},
	loadResident: async (graph, host) => {
		const session = await device.loadResident(graph, host);
		return {
			...session,
			run: async (feeds, signal) => {
				const results = await session.run(feeds, signal);
				Object.values(results.resident).forEach((tensor) => watch(live, tensor));
				return results;
			},
		};
	},
});
