/** The backend of a profile that does not compute on the CPU. */
import { TurbocastError } from '../protocol/errors.js';
import type { DeviceBackend } from './backend.js';
import { createNativeRuntime } from './backends/onnxruntime-c.js';
import { createWebGpu } from './backends/onnxruntime.js';
import { deviceOf } from './profile.js';
import type { EngineProfile } from './protocol.js';

export type OpenDevice = (profile: EngineProfile, threads: number) => DeviceBackend;

/** The first card of CUDA_VISIBLE_DEVICES, or the one that WebGPU finds. Throws `device_unavailable` where CUDA's library cannot be called at all. */
export const openDevice: OpenDevice = (profile, threads) => {
	const device = deviceOf(profile);
	switch (device) {
		case 'webgpu':
			return createWebGpu({ threads });
		case 'cuda':
			return createNativeRuntime({ threads, provider: { kind: 'cuda', deviceId: 0 } });
		case 'cpu':
			throw new TurbocastError('internal', `The profile ${profile} runs on no device.`);
	}
};
