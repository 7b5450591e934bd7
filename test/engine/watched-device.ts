/** A device whose tensors are known for as long as they live. */
import type { DeviceBackend, ResidentTensor } from '../../src/engine/backend.js';

export const bytesOf = ({ type, dims }: ResidentTensor): number => (type === 'float16' ? 2 : 4) * dims.reduce((product, size) => product * size, 1);

/** The same device; `live` has every tensor that a graph left there and nobody has closed. */
export const watched = (device: DeviceBackend, live: Set<ResidentTensor>): DeviceBackend => ({
	...device,
	loadResident: async (graph, host) => {
		const session = await device.loadResident(graph, host);
		return {
			...session,
			run: async (feeds, signal) => {
				const results = await session.run(feeds, signal);
				for (const tensor of Object.values(results.resident)) {
					const { close } = tensor;
					live.add(tensor);
					Object.assign(tensor, { close: () => {
						live.delete(tensor);
						close.call(tensor);
					} });
				}
				return results;
			},
		};
	},
});
