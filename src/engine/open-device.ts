/** The backend of a profile that does not compute on the CPU. */
import { TurbocastError } from '../protocol/errors.js';
import type { DeviceBackend } from './backend.js';
import { createWebGpu } from './backends/onnxruntime.js';
import { deviceOf } from './profile.js';
import type { EngineProfile } from './protocol.js';

/** Throws `device_unavailable` for a profile that no backend runs. */
export const openDevice = (profile: EngineProfile, threads: number): DeviceBackend => {
	if (deviceOf(profile) !== 'webgpu') {
		throw new TurbocastError('device_unavailable', `Nothing runs the profile ${profile} yet: its graphs can be made, but there is no CUDA backend. Use webgpu-fp16 on NVIDIA cards too; see docs/gpu.md.`);
	}
	return createWebGpu({ threads });
};
