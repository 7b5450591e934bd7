/** Where the shared libraries of ONNX Runtime, and of our own kernels, lie. Loads none of them. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of onnxruntime-node for this machine; the CUDA provider's libraries are put there too (docs/gpu.md). */
export const libraryFolder = (): string =>
	join(dirname(createRequire(import.meta.url).resolve('onnxruntime-node/package.json')), 'bin', 'napi-v6', process.platform, process.arch);

const CUDA_FILES: { readonly [platform: string]: string } = { linux: 'libonnxruntime_providers_cuda.so', win32: 'onnxruntime_providers_cuda.dll' };

/** Whether somebody has installed the CUDA provider; says nothing about a card. */
export const hasCudaProvider = (): boolean => {
	const file = CUDA_FILES[process.platform];
	return file !== undefined && existsSync(join(libraryFolder(), file));
};

/** Where `npm run build:cuda` puts our kernels for CUDA. */
export const builtKernels = fileURLToPath(new URL('../../../../native/cuda/build/libturbocast_cuda.so', import.meta.url));

/** Why there are no kernels to try; `undefined` where somebody has built them. Says nothing about a card. */
export const missingKernels = (path = builtKernels): string | undefined => (existsSync(path) ? undefined : `there is no ${path}; npm run build:cuda makes it (native/cuda/README.md)`);
