// Builds native/cuda: npm run build:cuda [-- --emulated | --compile-only] [--out FOLDER] [--arch sm_80,sm_90]
//   without an option   the library (libturbocast_cuda.so) and its check program, by nvcc; CUDA_HOME or /usr/local/cuda names the toolkit
//   --emulated          the same for the processor (libturbocast_emulated.so, check-emulated), by a C++ compiler (CXX or g++): no card and no toolkit needed
//   --compile-only      proves that nvcc takes every kernel, without optimising and without linking
// Nothing of turbocast needs the library: without it the graphs do what the kernels would.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './setup.mjs';

const valueOf = (name, otherwise) => {
	const index = process.argv.indexOf(name);
	return index < 0 ? otherwise : process.argv[index + 1];
};
const isEmulated = process.argv.includes('--emulated');
const isCompileOnly = process.argv.includes('--compile-only');
const source = join(root, 'native', 'cuda');
const out = valueOf('--out', join(source, 'build'));
const architectures = valueOf('--arch', isCompileOnly ? 'sm_80,sm_90' : 'sm_80,sm_89,sm_90,sm_120').split(',');

const nvcc = join(process.env.CUDA_HOME ?? '/usr/local/cuda', 'bin', 'nvcc');
const compiler = isEmulated ? process.env.CXX ?? 'g++' : nvcc;
if (!isEmulated && !existsSync(nvcc)) {
	console.error(`There is no ${nvcc}; install the CUDA toolkit, version 12 or newer, or name its folder in CUDA_HOME.`);
	process.exit(3);
}

const kernels = readdirSync(source).filter((name) => name.endsWith('.cu') && name !== 'check.cu');
// The fused multiply-add that a compiler may make of a product and a sum rounds once where the reference rounds twice.
const flags = isEmulated
	? ['-std=c++17', '-O1', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas', '-U_FORTIFY_SOURCE', '-fPIC', '-x', 'c++']
	: ['-std=c++17', '--Werror', 'all-warnings', ...(isCompileOnly ? ['-O1', '-Xptxas', '-O0'] : ['-O3']), '-Xcompiler', '-fPIC,-ffp-contract=off', '-x', 'cu',
		// To prove that it compiles, one translation for the oldest is enough for all.
		...(isCompileOnly
			? ['-gencode', `arch=${architectures[0].replace('sm', 'compute')},code=[${architectures.join(',')}]`]
			: architectures.flatMap((architecture) => ['-gencode', `arch=${architecture.replace('sm', 'compute')},code=${architecture}`]))];

const run = (args) => new Promise((resolve, reject) => {
	const child = spawn(compiler, args, { cwd: source, stdio: ['ignore', 'inherit', 'inherit'] });
	child.on('error', reject);
	child.on('exit', (code, signal) => (code === 0 ? resolve() : reject(new Error(`${compiler} ${args.join(' ')}: ${signal ?? code}`))));
});

const objectOf = (name) => join(out, `${name}.${isEmulated ? 'emulated.' : ''}o`);
mkdirSync(out, { recursive: true });
const both = [...kernels, 'status.cpp', ...(isEmulated ? ['emulation.cpp'] : [])];
const library = [...both, 'operators.cpp'];
const program = [...both, 'check.cu'];
const all = isCompileOnly ? library : [...library, 'check.cu'];
try {
	await Promise.all(all.map((name) => run([...flags, '-c', name, '-o', objectOf(name)])));
	if (!isCompileOnly) {
		const [linking, suffix] = isEmulated ? [[], 'emulated'] : [['-cudart', 'static'], 'cuda'];
		await run([...linking, '-shared', ...library.map(objectOf), '-o', join(out, `libturbocast_${suffix}.so`)]);
		await run([...linking, ...program.map(objectOf), '-o', join(out, isEmulated ? 'check-emulated' : 'check')]);
	}
} catch (error) {
	console.error(error.message);
	process.exit(1);
}
