import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseDevice, type DeviceRequest, hasGraphics, type ProfileReport, SELF_TEST_TIMEOUT_MS, testProfile, UNASKED_SELF_TEST_TIMEOUT_MS } from '../../src/engine/device-choice.js';
import { openDevice } from '../../src/engine/open-device.js';
import type { CardProfile, EngineProfile, UseMode } from '../../src/engine/protocol.js';
import { hasCudaProvider, missingKernels } from '../../src/engine/c-api/library-folder.js';
import { prepareVulkan } from './vulkan.js';

const skip = prepareVulkan();

const AUTO: DeviceRequest = { device: 'auto', profile: 'auto', threads: 1, isOwnModel: true, hasGraphics: () => true, hasCuda: () => false };
const RIGHT = { kind: 'right', relativeError: 1e-6, deviceMs: 2, cpuMs: 30 } as const;

/** A card whose self-tests give these. */
const card = (reports: { readonly [P in CardProfile]?: Omit<Extract<ProfileReport, { kind: 'right' | 'wrong' }>, 'profile'> }) => {
	const asked: CardProfile[] = [];
	return {
		asked, test: (profile: CardProfile): Promise<ProfileReport> => {
			asked.push(profile);
			const report = reports[profile];
			return Promise.resolve(report === undefined ? { profile, kind: 'unavailable', why: 'no float16' } : { profile, ...report });
		},
	};
};

test('auto takes the first profile that is right and fast; without a card nothing is tested', async () => {
	const whole = card({ 'webgpu-fp16': RIGHT, 'webgpu-fp32': RIGHT });
	assert.equal((await chooseDevice({ ...AUTO, ...whole })).profile, 'webgpu-fp16');
	assert.deepEqual(whole.asked, ['webgpu-fp16']);
	assert.equal((await chooseDevice({ ...AUTO, ...card({ 'webgpu-fp32': RIGHT }) })).profile, 'webgpu-fp32');
	const none = card({});
	assert.deepEqual(await chooseDevice({ ...AUTO, ...none, hasGraphics: () => false }), { profile: 'cpu-int8', why: 'no graphics card was found', reports: [] });
	assert.deepEqual(none.asked, []);
});

test('a card with wrong numbers is refused with the figure: by auto for the processor, by name with device_wrong', async () => {
	const wrong = card({ 'webgpu-fp32': { ...RIGHT, kind: 'wrong', relativeError: 0.25 } });
	const chosen = await chooseDevice({ ...AUTO, ...wrong });
	assert.equal(chosen.profile, 'cpu-int8');
	assert.match(chosen.why, /webgpu-fp32 computes wrong numbers \(relative error 2\.5e-1/u);
	await assert.rejects(chooseDevice({ ...AUTO, ...wrong, device: 'webgpu' }), { code: 'device_wrong', message: /2\.5e-1/u });
	await assert.rejects(chooseDevice({ ...AUTO, ...card({}), device: 'webgpu' }), { code: 'device_unavailable', message: /no float16/u });
});

test('a card that nobody asked for is not waited for long', async () => {
	const waits: (number | undefined)[] = [];
	const patience = (request: Partial<DeviceRequest>) => chooseDevice({
		...AUTO, ...request, test: (profile, _threads, timeoutMs) => {
			waits.push(timeoutMs);
			return Promise.resolve({ profile, ...RIGHT });
		},
	});
	await patience({});
	await patience({ device: 'webgpu' });
	await patience({ profile: 'webgpu-fp32' });
	assert.deepEqual(waits, [UNASKED_SELF_TEST_TIMEOUT_MS, SELF_TEST_TIMEOUT_MS, SELF_TEST_TIMEOUT_MS]);
});

test('our kernels are used in cuda-fp16 where they are there and right; auto says why not, on refuses to go without them, off does not ask', async () => {
	const asked: (readonly [CardProfile, number | undefined, boolean | undefined])[] = [];
	const choose = (kernels: UseMode | undefined, found: 'right' | 'wrong' | 'unavailable' | 'not built', profile: EngineProfile = 'cuda-fp16') => chooseDevice({
		...AUTO, profile, kernels, hasCuda: () => true, missingKernels: () => (found === 'not built' ? 'there is no library' : undefined),
		test: (of, _threads, timeoutMs, isOfKernels) => {
			asked.push([of, timeoutMs, isOfKernels]);
			if (isOfKernels !== true) {
				return Promise.resolve({ profile: of, ...RIGHT });
			}
			return Promise.resolve(found === 'unavailable' || found === 'not built' ? { profile: of, kind: 'unavailable', why: 'the driver refused' } : { profile: of, ...RIGHT, relativeError: 0.005, kind: found });
		},
	});
	const right = await choose('auto', 'right');
	assert.equal(right.profile, 'cuda-fp16');
	assert.equal(right.kernels?.areUsed, true);
	assert.match(right.kernels?.why ?? '', /^the kernels compute right \(error 5\.0e-3/u);
	assert.deepEqual(asked, [['cuda-fp16', SELF_TEST_TIMEOUT_MS, undefined], ['cuda-fp16', SELF_TEST_TIMEOUT_MS, true]]);
	assert.deepEqual((await choose('auto', 'not built')).kernels, { areUsed: false, why: 'there is no library' });
	assert.deepEqual((await choose('auto', 'unavailable')).kernels, { areUsed: false, why: 'the driver refused' });
	const wrong = (await choose('auto', 'wrong')).kernels;
	assert.equal(wrong?.areUsed, false);
	assert.match(wrong?.why ?? '', /compute wrong numbers \(relative error 5\.0e-3/u);
	assert.equal((await choose('on', 'right')).kernels?.areUsed, true);
	await assert.rejects(choose('on', 'wrong'), { code: 'device_wrong', message: /5\.0e-3/u });
	await assert.rejects(choose('on', 'unavailable'), { code: 'device_unavailable', message: /the driver refused/u });
	await assert.rejects(choose('on', 'not built'), { code: 'device_unavailable', message: /there is no library/u });
	await assert.rejects(choose('on', 'right', 'cuda-fp32'), { code: 'invalid_config', message: /cuda-fp32 has no use for them/u });
	assert.equal((await choose('auto', 'right', 'cuda-fp32')).kernels, undefined);
	asked.length = 0;
	for (const kernels of ['off', undefined] as const) {
		assert.deepEqual((await choose(kernels, 'right')).kernels, { areUsed: false, why: 'engine.kernels is off' });
	}
	assert.ok(asked.every(([, , isOfKernels]) => isOfKernels !== true), 'their self-test was run although they are off');
});

test('cuda-int8 is taken unasked only where our kernels are right in both profiles, and faster in 8 bits at the same work; by name whatever its time; never without them', async () => {
	type Found = 'right' | 'wrong' | 'slower' | 'not built';
	const choose = (found: Found, request: Partial<DeviceRequest> = {}) => {
		const asked: string[] = [];
		const choosing = chooseDevice({
			...AUTO, kernels: 'auto', hasCuda: () => true, missingKernels: () => (found === 'not built' ? 'there is no library' : undefined), ...request,
			test: (profile, _threads, _timeoutMs, isOfKernels) => {
				asked.push(isOfKernels === true ? `${profile} with kernels` : profile);
				const is8Bit = profile === 'cuda-int8';
				return Promise.resolve({ profile, ...RIGHT, kind: is8Bit && found === 'wrong' ? 'wrong' : 'right', deviceMs: is8Bit ? (found === 'slower' ? 3 : 1) : 2 });
			},
		});
		return { asked, choosing };
	};
	const better = choose('right');
	const chosen = await better.choosing;
	assert.deepEqual(better.asked, ['cuda-fp16', 'cuda-fp16 with kernels', 'cuda-int8 with kernels']);
	assert.equal(chosen.profile, 'cuda-int8');
	assert.match(chosen.why, /^cuda-int8 computes right .*; cuda-fp16 took 2\.0 ms$/u);
	assert.equal(chosen.kernels?.areUsed, true);
	assert.deepEqual(chosen.reports.map(({ profile }) => profile), ['cuda-fp16', 'cuda-int8']);
	for (const found of ['wrong', 'slower', 'not built'] as const) {
		const { profile, kernels } = await choose(found).choosing;
		assert.deepEqual([profile, kernels?.areUsed], ['cuda-fp16', found !== 'not built'], found);
	}
	const off = choose('right', { kernels: 'off' });
	assert.equal((await off.choosing).profile, 'cuda-fp16');
	assert.deepEqual(off.asked, ['cuda-fp16']);
	const other = choose('right', { profile: 'cuda-fp16' });
	assert.equal((await other.choosing).profile, 'cuda-fp16');
	assert.deepEqual(other.asked, ['cuda-fp16', 'cuda-fp16 with kernels']);

	const named = choose('slower', { profile: 'cuda-int8' });
	assert.deepEqual(await named.choosing.then(({ profile, kernels }) => [profile, kernels]), ['cuda-int8', { areUsed: true, why: 'cuda-int8 is made of them' }]);
	assert.deepEqual(named.asked, ['cuda-int8 with kernels']);
	await assert.rejects(choose('not built', { profile: 'cuda-int8' }).choosing, { code: 'device_unavailable', message: /cuda-int8 cannot be used: there is no library/u });
	await assert.rejects(choose('wrong', { profile: 'cuda-int8' }).choosing, { code: 'device_wrong', message: /cuda-int8 computes wrong numbers/u });
	await assert.rejects(choose('right', { profile: 'cuda-int8', kernels: 'off' }).choosing, { code: 'invalid_config', message: /made of our own kernels, and engine\.kernels is off/u });
	await assert.rejects(choose('right', { profile: 'cuda-int8', device: 'webgpu' }).choosing, { code: 'invalid_config' });
});

test('without the library, or without a card, the self-test of the kernels is a report with the reason, and no error', { skip: hasCudaProvider() && missingKernels() === undefined && 'CUDA and our kernels are installed here' }, async () => {
	const report = await testProfile('cuda-fp16', 1, SELF_TEST_TIMEOUT_MS, true);
	assert.equal(report.kind, 'unavailable');
	assert.match(report.kind === 'unavailable' ? report.why : '', missingKernels() === undefined ? /CUDA|kernels/u : /The kernels of turbocast cannot be used: there is no .*npm run build:cuda/u);
});

test('a slow card is refused by auto and taken by name', async () => {
	const slow = { 'webgpu-fp32': { ...RIGHT, deviceMs: 900 } };
	const chosen = await chooseDevice({ ...AUTO, ...card(slow) });
	assert.equal(chosen.profile, 'cpu-int8');
	assert.match(chosen.why, /slower than the processor/u);
	assert.equal((await chooseDevice({ ...AUTO, ...card(slow), device: 'webgpu' })).profile, 'webgpu-fp32');
	assert.equal((await chooseDevice({ ...AUTO, ...card(slow), profile: 'webgpu-fp32' })).profile, 'webgpu-fp32');
});

test('CUDA is tried first where its provider is installed, falls back to what is right, and by name is tested whatever is installed', async () => {
	const whole = card({ 'cuda-fp16': RIGHT, 'webgpu-fp16': RIGHT });
	assert.equal((await chooseDevice({ ...AUTO, ...whole, hasCuda: () => true })).profile, 'cuda-fp16');
	assert.deepEqual(whole.asked, ['cuda-fp16']);
	const half = card({ 'cuda-fp16': { ...RIGHT, kind: 'wrong', relativeError: 0.5 }, 'webgpu-fp16': RIGHT });
	assert.equal((await chooseDevice({ ...AUTO, ...half, hasCuda: () => true })).profile, 'webgpu-fp16');
	assert.deepEqual(half.asked, ['cuda-fp16', 'cuda-fp32', 'webgpu-fp16']);
	assert.equal((await chooseDevice({ ...AUTO, ...card({ 'cuda-fp32': RIGHT }), device: 'cuda' })).profile, 'cuda-fp32');
	assert.equal((await chooseDevice({ ...AUTO, ...card({ 'cuda-fp32': RIGHT }), profile: 'cuda-fp32' })).profile, 'cuda-fp32');
	await assert.rejects(chooseDevice({ ...AUTO, ...card({ 'webgpu-fp16': RIGHT }), device: 'cuda' }), { code: 'device_unavailable', message: /cuda-fp16 cannot be used.*cuda-fp32 cannot be used/u });
});

test('cuda-int8 does not open without the kernels', { skip: missingKernels() === undefined && 'our kernels are built here' }, () => {
	assert.throws(() => openDevice('cuda-int8', 1), { code: 'device_unavailable', message: /The kernels of turbocast cannot be used: there is no .*npm run build:cuda/u });
});

test('the self-test of CUDA on this machine says what is missing', { skip: hasCudaProvider() && 'the CUDA provider is installed here' }, async () => {
	const report = await testProfile('cuda-fp16', 1);
	assert.ok(report.kind === 'unavailable', JSON.stringify(report));
	assert.match(report.why, /docs\/gpu\.md for what must be installed/u);
});

test('what was asked for is not tested on the processor; contradictions are refused', async () => {
	const never = { ...AUTO, test: () => assert.fail('tested') };
	assert.equal((await chooseDevice({ ...never, device: 'cpu' })).profile, 'cpu-int8');
	assert.equal((await chooseDevice({ ...never, profile: 'cpu-fp32' })).profile, 'cpu-fp32');
	assert.equal((await chooseDevice({ ...never, isOwnModel: false })).profile, 'cpu-int8');
	await assert.rejects(chooseDevice({ ...never, device: 'cpu', profile: 'webgpu-fp32' }), { code: 'invalid_config' });
	await assert.rejects(chooseDevice({ ...never, device: 'webgpu', profile: 'cpu-int8' }), { code: 'invalid_config' });
	await assert.rejects(chooseDevice({ ...never, device: 'webgpu', profile: 'cuda-fp16' }), { code: 'invalid_config' });
	await assert.rejects(chooseDevice({ ...never, device: 'cuda', profile: 'webgpu-fp16' }), { code: 'invalid_config' });
});

test('a driver that is named counts as a card', () => {
	assert.equal(hasGraphics({ VK_ICD_FILENAMES: '/some/driver.json' }), true);
});

test('the self-test on a real driver: right in float32; a driver that is not there is unavailable, and nothing here dies of it', { skip }, async () => {
	// Software compiles the shaders of a card in fifteen seconds of a processor that may be busy.
	const report = await testProfile('webgpu-fp32', 1, 200_000);
	assert.equal(report.kind, 'right', JSON.stringify(report));
	const known = process.env['VK_ICD_FILENAMES'];
	process.env['VK_ICD_FILENAMES'] = '/nowhere.json';
	try {
		const missing = await testProfile('webgpu-fp32', 1);
		assert.ok(missing.kind === 'unavailable', JSON.stringify(missing));
		assert.match(missing.why, /no graphics card|adapter/u);
	} finally {
		process.env['VK_ICD_FILENAMES'] = known;
	}
});
