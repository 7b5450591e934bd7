import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCudaProvider } from '../../src/engine/c-api/library-folder.js';
import { USE_MODES } from '../../src/engine/protocol.js';
import { chooseRecordings, type RecordingRequest } from '../../src/engine/recording-choice.js';

const REQUEST: RecordingRequest = { mode: 'on', profile: 'cuda-fp16', kernels: true, threads: 1, isStream: true };
const EQUAL = { relativeError: 0, directMs: 3, recordedMs: 1 };

const choose = (request: Partial<RecordingRequest>, found: Awaited<ReturnType<NonNullable<RecordingRequest['test']>>> = EQUAL) =>
	chooseRecordings({ ...REQUEST, test: () => Promise.resolve(found), ...request });

test('recordings are used where they are asked for and equal, and by auto only where they are faster', async () => {
	const asked: unknown[] = [];
	assert.deepEqual(await choose({ test: (...request) => {
		asked.push(request);
		return Promise.resolve(EQUAL);
	} }), { areUsed: true, why: 'they are equal to the runs without: 1.00 ms a forward against 3.00 ms without' });
	assert.deepEqual(asked, [['cuda-fp16', 1, true]]);
	assert.equal((await choose({ mode: 'auto' }))?.areUsed, true);
	assert.deepEqual(await choose({ mode: 'auto' }, { ...EQUAL, recordedMs: 3 }), { areUsed: false, why: 'they are not faster: 3.00 ms a forward against 3.00 ms without' });
	assert.equal((await choose({}, { ...EQUAL, recordedMs: 4 }))?.areUsed, true);
});

test('recordings that differ, by however little, or cannot be made, are refused: by auto with the reason, by on with a code', async () => {
	for (const [relativeError, figure] of [[1e-9, /1\.0e-9/u], [Number.NaN, /NaN/u]] as const) {
		const choice = await choose({ mode: 'auto' }, { ...EQUAL, relativeError });
		assert.equal(choice?.areUsed, false);
		assert.match(choice?.why ?? '', figure);
		await assert.rejects(choose({}, { ...EQUAL, relativeError }), { code: 'device_wrong', message: figure });
	}
	assert.deepEqual(await choose({ mode: 'auto' }, { why: 'the driver refused' }), { areUsed: false, why: 'the driver refused' });
	await assert.rejects(choose({}, { why: 'the driver refused' }), { code: 'device_unavailable', message: /the driver refused/u });
});

test('nothing is tested where they are off, or where nothing could be recorded: then on is invalid_config', async () => {
	const never = (): never => assert.fail('it was tested');
	for (const mode of USE_MODES) {
		for (const [request, sentence] of [[{ profile: 'cpu-int8' }, /cpu-int8 does not run on CUDA/u], [{ profile: 'webgpu-fp32' }, /webgpu-fp32/u], [{ isStream: false }, /clips/u]] as const) {
			if (mode === 'on') {
				await assert.rejects(choose({ ...request, mode, test: never }), { code: 'invalid_config', message: sentence });
			} else {
				assert.equal(await choose({ ...request, mode, test: never }), undefined);
			}
		}
	}
	assert.equal(await choose({ mode: 'off', test: never }), undefined);
});

test('without CUDA the self-test of recordings is a reason, and no error', { skip: hasCudaProvider() && 'the CUDA provider is installed here' }, async () => {
	const choice = await chooseRecordings({ ...REQUEST, mode: 'auto', kernels: false });
	assert.equal(choice?.areUsed, false);
	assert.match(choice?.why ?? '', /CUDA/u);
});
