/** The backend of a profile. */
import { TurbocastError } from '../protocol/errors.js';
import type { Backend, DeviceBackend } from './backend.js';
import { createNativeRuntime } from './backends/onnxruntime-c.js';
import { createOnnxRuntime, createWebGpu } from './backends/onnxruntime.js';
import { openKernels } from './c-api/kernels.js';
import { deviceOf, needsKernels, usesKernels } from './profile.js';
import type { EngineProfile } from './protocol.js';

export type OpenDevice = (profile: EngineProfile, threads: number, wantsKernels?: boolean) => DeviceBackend;

/**
 * The first card of CUDA_VISIBLE_DEVICES, or the one that WebGPU finds. Throws `device_unavailable` where CUDA's library cannot be called at all, and where our kernels
 * are wanted by a profile that uses them, or needed by one, and cannot be.
 */
export const openDevice: OpenDevice = (profile, threads, wantsKernels = false) => {
	const device = deviceOf(profile);
	switch (device) {
		case 'webgpu':
			return createWebGpu({ threads });
		case 'cuda':
			return createNativeRuntime({ threads, provider: { kind: 'cuda', deviceId: 0 }, kernels: needsKernels(profile) || (wantsKernels && usesKernels(profile)) ? openKernels('cuda') : undefined });
		case 'cpu':
			throw new TurbocastError('internal', `The profile ${profile} runs on no device.`);
	}
};

/** The same, and the processor's. */
export const openBackend = (profile: EngineProfile, threads: number): Backend =>
	(deviceOf(profile) === 'cpu' ? createOnnxRuntime({ threads }) : openDevice(profile, threads));
