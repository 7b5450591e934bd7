/**
 * On what an engine computes: asked for by name, or the fastest that gives right numbers. A graphics card is believed only after a self-test, in a
 * process of its own, because ONNX Runtime and drivers may end theirs. Nothing here imports the tensor library.
 */
import { existsSync, readdirSync } from 'node:fs';
import { TurbocastError } from '../protocol/errors.js';
import { deviceOf, needsKernels, type ProfileDevice, usesKernels } from './profile.js';
import { hasCudaProvider, missingKernels } from './c-api/library-folder.js';
import { type CardProfile, type DeviceChoice, type EngineProfile, type UseMode, WEBGPU_PROFILES } from './protocol.js';
import { runInSelfTestProcess } from './self-test-child.js';
import type { SelfTest } from './self-test.js';

/** What the self-test of a profile found. */
export type ProfileReport = { readonly profile: CardProfile } & (
	| ({ readonly kind: 'right' | 'wrong' } & SelfTest)
	| { readonly kind: 'unavailable'; readonly why: string });

export type ChosenDevice = {
	readonly profile: EngineProfile;
	/** One sentence for the log. */
	readonly why: string;
	readonly reports: readonly ProfileReport[];
	/** Only of profiles that have a use for our kernels: whether they are used, and why or why not, in one sentence. */
	readonly kernels?: { readonly areUsed: boolean; readonly why: string } | undefined;
};

/** Longest self-test. The first run of a card compiles its shaders. */
export const SELF_TEST_TIMEOUT_MS = 120_000;
/** The same where nobody asked for the card: a start must not wait long for one that may not be used in the end. */
export const UNASKED_SELF_TEST_TIMEOUT_MS = 10_000;
/** Largest relative error of a device: what its numbers cost, and a margin of ten. */
const TOLERANCES: { readonly [P in CardProfile]: number } = { 'webgpu-fp32': 1e-4, 'webgpu-fp16': 2e-2, 'cuda-fp32': 1e-4, 'cuda-fp16': 2e-2, 'cuda-int8': 2e-2 };

/** Whether there is any card that could be found; costs nothing where there is not. */
export const hasGraphics = (environment: { readonly [name: string]: string | undefined } = process.env): boolean => {
	if (process.platform !== 'linux') {
		return true;
	}
	const nodes = existsSync('/dev/dri') ? readdirSync('/dev/dri').some((name) => name.startsWith('renderD')) : false;
	return nodes || existsSync('/dev/nvidia0') || existsSync('/dev/dxg') || environment['VK_ICD_FILENAMES'] !== undefined || environment['VK_DRIVER_FILES'] !== undefined;
};

/** Runs the self-test of a profile, or of our kernels in it, in a process of its own. Never rejects: whatever goes wrong there is `unavailable`. */
export const testProfile = async (profile: CardProfile, threads: number, timeoutMs = SELF_TEST_TIMEOUT_MS, kernels = false): Promise<ProfileReport> => {
	const outcome = await runInSelfTestProcess<SelfTest>({ profile, threads, kernels }, timeoutMs);
	return 'why' in outcome
		? { profile, kind: 'unavailable', why: outcome.why }
		: { profile, kind: outcome.relativeError <= TOLERANCES[profile] ? 'right' : 'wrong', ...outcome };
};

const figures = ({ relativeError, deviceMs, cpuMs }: SelfTest): string => `error ${relativeError.toExponential(1)}, ${deviceMs.toFixed(1)} ms against ${cpuMs.toFixed(1)} ms on the processor`;

const sentence = (report: ProfileReport): string => {
	switch (report.kind) {
		case 'right':
			return `${report.profile} computes right (${figures(report)})`;
		case 'wrong':
			return `${report.profile} computes wrong numbers (relative error ${report.relativeError.toExponential(1)}, at most ${TOLERANCES[report.profile]} is allowed)`;
		case 'unavailable':
			return `${report.profile} cannot be used: ${report.why}`;
	}
};

const refusal = (reports: readonly ProfileReport[]): TurbocastError => {
	const code = reports.some(({ kind }) => kind === 'wrong') ? 'device_wrong' : 'device_unavailable';
	return new TurbocastError(code, `No profile of the graphics card can be used: ${reports.map(sentence).join('; ')}. Set engine.device to cpu, or see docs/gpu.md.`);
};

export type DeviceRequest = {
	readonly device: DeviceChoice;
	readonly profile: EngineProfile | 'auto';
	readonly threads: number;
	/** Whether the model is of the embedded kind; others run on a card only when that is asked for. */
	readonly isOwnModel: boolean;
	/** Default `off`. */
	readonly kernels?: UseMode | undefined;
	/** For tests. */
	readonly test?: typeof testProfile;
	readonly hasGraphics?: () => boolean;
	readonly hasCuda?: () => boolean;
	readonly missingKernels?: () => string | undefined;
};

/** Of CUDA, those that need nothing of ours. `cuda-int8` is tried only beside the first of them. */
const CUDA_CANDIDATES = ['cuda-fp16', 'cuda-fp32'] as const satisfies readonly CardProfile[];

/** In the order in which they are tried. CUDA before WebGPU: on the cards that have both, its kernels are made for them. */
const candidatesOf = (device: DeviceChoice, profile: EngineProfile | 'auto', hasCuda: boolean): readonly CardProfile[] => {
	if (profile !== 'auto') {
		return [profile as CardProfile];
	}
	return device === 'webgpu' ? WEBGPU_PROFILES : device === 'cuda' ? CUDA_CANDIDATES : [...(hasCuda ? CUDA_CANDIDATES : []), ...WEBGPU_PROFILES];
};

const belongsTo = (profile: EngineProfile, device: ProfileDevice): void => {
	if (deviceOf(profile) !== device) {
		throw new TurbocastError('invalid_config', `engine.profile ${profile} does not run on engine.device ${device}; leave one of them at auto.`);
	}
};

const isCardNamed = ({ device, profile }: DeviceRequest): boolean => device !== 'auto' || profile !== 'auto';

const patienceMs = (request: DeviceRequest): number => (isCardNamed(request) ? SELF_TEST_TIMEOUT_MS : UNASKED_SELF_TEST_TIMEOUT_MS);

const tested = ({ threads, test = testProfile, ...request }: DeviceRequest, profile: CardProfile): Promise<ProfileReport> => test(profile, threads, patienceMs({ threads, ...request }));

/** Of a profile with our kernels. */
const testKernels = async (request: DeviceRequest, profile: CardProfile): Promise<ProfileReport> => {
	const { threads, test = testProfile, missingKernels: missing = missingKernels } = request;
	const why = missing();
	return why === undefined ? test(profile, threads, patienceMs(request), true) : { profile, kind: 'unavailable', why };
};

/**
 * Chooses. A device asked for by name is used however slow it is, but never when it computes wrong numbers. Throws `device_wrong` with the figure,
 * `device_unavailable`, or `invalid_config` where device and profile contradict each other.
 */
const chooseProfile = async (request: DeviceRequest): Promise<ChosenDevice> => {
	const { device, profile, isOwnModel, hasGraphics: isThere = hasGraphics, hasCuda = hasCudaProvider } = request;
	if (device !== 'auto' && profile !== 'auto') {
		belongsTo(profile, device);
	}
	if (profile !== 'auto' && needsKernels(profile) && request.kernels === 'off') {
		throw new TurbocastError('invalid_config', `engine.profile ${profile} is made of our own kernels, and engine.kernels is off. Set that to auto, or take cuda-fp16.`);
	}
	if (device === 'cpu' || (profile !== 'auto' && deviceOf(profile) === 'cpu')) {
		return { profile: profile === 'auto' ? 'cpu-int8' : profile, why: 'it was asked for', reports: [] };
	}
	const isNamed = isCardNamed(request);
	if (!isNamed && !isOwnModel) {
		return { profile: 'cpu-int8', why: 'models joined from published networks run on a graphics card only when engine.device says so', reports: [] };
	}
	if (!isNamed && !isThere()) {
		return { profile: 'cpu-int8', why: 'no graphics card was found', reports: [] };
	}
	const reports: ProfileReport[] = [];
	for (const candidate of candidatesOf(device, profile, hasCuda())) {
		const report = await (needsKernels(candidate) ? testKernels(request, candidate) : tested(request, candidate));
		reports.push(report);
		if (report.kind === 'right') {
			const isSlow = report.deviceMs >= report.cpuMs;
			return !isNamed && isSlow
				? { profile: 'cpu-int8', why: `the graphics card is slower than the processor, as software drivers are: ${sentence(report)}`, reports }
				: { profile: candidate, why: sentence(report), reports };
		}
	}
	if (isNamed) {
		throw refusal(reports);
	}
	return { profile: 'cpu-int8', why: reports.map(sentence).join('; '), reports };
};

const kernelSentence = (report: ProfileReport): string => {
	switch (report.kind) {
		case 'right':
			return `the kernels compute right (${figures(report)})`;
		case 'wrong':
			return `the kernels compute wrong numbers (relative error ${report.relativeError.toExponential(1)}, at most ${TOLERANCES[report.profile]} is allowed)`;
		case 'unavailable':
			return report.why;
	}
};

type KernelChoice = NonNullable<ChosenDevice['kernels']> & { /** Of their self-test, where there was one. */ readonly report?: ProfileReport };

/** Whether our kernels are used in the profile that was chosen. Throws `device_wrong` or `device_unavailable` where they must be and cannot be. */
const chooseKernels = async (request: DeviceRequest, profile: EngineProfile): Promise<KernelChoice | undefined> => {
	const { kernels = 'off' } = request;
	if (needsKernels(profile)) {
		return { areUsed: true, why: `${profile} is made of them` };
	}
	if (!usesKernels(profile)) {
		if (kernels === 'on') {
			throw new TurbocastError('invalid_config', `engine.kernels is on, but ${profile} has no use for them: they belong to cuda-fp16 and cuda-int8. Set it to auto.`);
		}
		return undefined;
	}
	if (kernels === 'off') {
		return { areUsed: false, why: 'engine.kernels is off' };
	}
	const report = await testKernels(request, profile as CardProfile);
	if (report.kind !== 'right' && kernels === 'on') {
		throw new TurbocastError(report.kind === 'wrong' ? 'device_wrong' : 'device_unavailable', `engine.kernels is on, but they cannot be used: ${kernelSentence(report)}. Set it to auto or off, or see docs/gpu.md.`);
	}
	return { areUsed: report.kind === 'right', why: kernelSentence(report), report };
};

/** Where nobody named a profile and our kernels are right in cuda-fp16: cuda-int8, if it is right and does the same work in less time. */
const tryInt8 = async (request: DeviceRequest, chosen: ChosenDevice, inFloat16: ProfileReport): Promise<ChosenDevice | undefined> => {
	if (request.profile !== 'auto' || chosen.profile !== 'cuda-fp16' || inFloat16.kind !== 'right') {
		return undefined;
	}
	const report = await testKernels(request, 'cuda-int8');
	const isBetter = report.kind === 'right' && report.deviceMs < inFloat16.deviceMs;
	return isBetter
		? { profile: 'cuda-int8', why: `${sentence(report)}; cuda-fp16 took ${inFloat16.deviceMs.toFixed(1)} ms`, reports: [...chosen.reports, report] }
		: { ...chosen, reports: [...chosen.reports, report] };
};

/** As `chooseProfile`; then whether our kernels are used in it, and 8 bits with them. Throws the same, also where `kernels` is on and they cannot be. */
export const chooseDevice = async (request: DeviceRequest): Promise<ChosenDevice> => {
	const chosen = await chooseProfile(request);
	const kernels = await chooseKernels(request, chosen.profile);
	if (kernels === undefined) {
		return chosen;
	}
	const { report, ...told } = kernels;
	const final = (report === undefined ? undefined : await tryInt8(request, chosen, report)) ?? chosen;
	return { ...final, kernels: told };
};
