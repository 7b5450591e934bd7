/** Which encoder is taken, and that one which does not really work is found out. */
import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { chooseEncoder, type ChoiceRequest } from '../../src/media/encoder-choice.js';
import { startEncoders } from '../../src/media/encoder-host.js';
import { testEncoder, type EncoderReport } from '../../src/media/encoder-self-test.js';
import { loadFfmpeg } from '../../src/media/encoders/ffmpeg.js';
import { HARDWARE_ENCODERS, type EncoderImplementation, type EncoderLibrary, type FrameEncoder } from '../../src/media/encoders/frame-encoder.js';
import { loadEncoder, whyNoHardware, withFallback } from '../../src/media/encoders/load.js';
import { SMALL, tryOut } from '../../src/media/encoders/try-out.js';
import { movingPicture } from './moving-picture.js';

/** An ffmpeg that takes all it is given and never answers. */
const hangingFfmpeg = async (): Promise<{ readonly path: string } & AsyncDisposable> => {
	const folder = await mkdtemp(join(tmpdir(), 'turbocast-ffmpeg-'));
	const path = join(folder, 'ffmpeg');
	await writeFile(path, '#!/bin/sh\nexec cat > /dev/null\n');
	await chmod(path, 0o755);
	return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
};

/** A real encoder whose calls somebody meddles with. */
const spoiled = async (spoil: (encoder: FrameEncoder) => FrameEncoder): Promise<EncoderLibrary> => {
	const library = await loadFfmpeg('');
	return { ...library, open: async (options) => spoil(await library.open(options)) };
};

test('the self-test passes an encoder that works', async () => {
	const { frameMs, psnrDb } = await tryOut(await loadFfmpeg(''));
	assert.ok(frameMs > 0 && psnrDb > 28, `${frameMs} ms, ${psnrDb} dB`);
});

test('the self-test finds out an encoder that ignores a forced key frame', async () => {
	const library = await spoiled((encoder) => ({ ...encoder, encode: (data, wanted) => encoder.encode(data, { ...wanted, keyframe: false }) }));
	await assert.rejects(tryOut(library), /does not place key frames/u);
});

test('the self-test finds out an encoder whose pictures are not those it was given', async () => {
	const library = await spoiled((encoder) => ({
		...encoder,
		// The planes of chroma changed places, as where NV12 is taken for I420.
		encode: (data, wanted) => {
			const luma = (data.byteLength * 2) / 3;
			const quarter = (data.byteLength - luma) / 2;
			return encoder.encode(Buffer.concat([data.subarray(0, luma), data.subarray(luma + quarter), data.subarray(luma, luma + quarter)]), wanted);
		},
	}));
	await assert.rejects(tryOut(library), /dB where 28 are the least/u);
});

test('the self-test finds out a stream that nobody can join at its key frames', async () => {
	const library = await spoiled((encoder) => {
		let count = 0;
		return {
			...encoder,
			encode: async (data, wanted) => {
				const picture = await encoder.encode(data, wanted);
				count += 1;
				// Parameter sets with the first key frame alone: what comes from the first slice (NAL type 5) on.
				const slice = Buffer.from(picture.data).indexOf(Buffer.from([0, 0, 0, 1, 0x65]));
				return count > 1 && slice > 0 ? { ...picture, data: picture.data.subarray(slice) } : picture;
			},
		};
	});
	await assert.rejects(tryOut(library), /0 of 7 pictures can be decoded/u);
});

test('an encoder that hangs is given up in bounded time', async () => {
	await using hanging = await hangingFfmpeg();
	const report = await testEncoder({ implementation: 'ffmpeg', ffmpegPath: hanging.path, size: SMALL, timeoutMs: 3000 });
	assert.equal(report.kind, 'refused');
	assert.match(report.kind === 'refused' ? report.why : '', /longer than 3 seconds/u);
	await assert.rejects(startEncoders({ implementation: 'ffmpeg', ffmpegPath: hanging.path, log: silentLog, clock: systemClock, startTimeoutMs: 3000 }), { code: 'encoder_failed' });
});

for (const hardware of HARDWARE_ENCODERS) {
	const why = whyNoHardware(hardware);
	test(`${hardware} is offered by a library, is tried where it is asked for, and is refused with what it said`, { skip: why === undefined ? 'its hardware may be here' : false }, async () => {
		await assert.rejects(startEncoders({ implementation: hardware, log: silentLog, clock: systemClock }), (error: Error) => {
			assert.match(error.message, new RegExp(`asks for ${hardware}, which does not work here: \\S.*media\\.encoder to auto`, 'u'));
			return true;
		});
	});
}

test('a stream goes on in software where the hardware does not take it, from a key frame', async () => {
	const software = await loadEncoder('ffmpeg', '');
	// VAAPI on a card that is not there fails as one does that is taken away: with the first picture.
	const library = withFallback(await loadFfmpeg('', '/dev/dri/renderD-none'), software);
	const encoder = await library.open({ codec: 'h264', width: 64, height: 64, fps: 16, bitrateBps: 300_000 });
	const keys: boolean[] = [];
	for (let index = 0; index < 3; index += 1) {
		keys.push((await encoder.encode(movingPicture(index, 64, 64).data, { keyframe: false, bitrateBps: 300_000 })).isKeyframe);
	}
	await encoder.close();
	assert.deepEqual(keys, [true, false, false]);
});

/** No machine of these tests has the hardware: the rule is tried with figures. */
const chooseWith = (frameMs: { readonly [implementation in EncoderImplementation]?: number }, changes: Partial<ChoiceRequest> = {}) => chooseEncoder({
	choice: 'auto', ffmpegPath: '', size: SMALL, whyNot: () => undefined,
	test: ({ implementation }) => {
		const figure = frameMs[implementation];
		return Promise.resolve<EncoderReport>(figure === undefined ? { implementation, kind: 'refused', why: 'It is broken.' } : { implementation, kind: 'works', frameMs: figure, psnrDb: 40 });
	},
	...changes,
});

test('hardware is taken where it works and is faster, the fastest first', async () => {
	assert.equal((await chooseWith({ 'nvenc': 2, 'vaapi': 1.5, 'node-av': 4 })).process, 'vaapi');
	const slow = await chooseWith({ 'nvenc': 5, 'node-av': 4 });
	assert.equal(slow.process, 'auto');
	assert.deepEqual(slow.reports.map((report) => (report.kind === 'refused' ? report.why : '')), ['it takes 5.0 ms a frame, node-av 4.0', 'It is broken.', 'It is broken.']);
	assert.equal((await chooseWith({ 'node-av': 4 })).process, 'auto');
	assert.equal((await chooseWith({ nvenc: 9, ffmpeg: 12 })).process, 'nvenc');
	assert.equal((await chooseWith({ 'nvenc': 9, 'node-av': 1 }, { choice: 'nvenc' })).process, 'nvenc');
	await assert.rejects(chooseWith({ 'node-av': 1 }, { choice: 'nvenc' }), /nvenc, which does not work here: It is broken\. Set/u);
});

test('where no hardware is, none is tried', async () => {
	const { process: chosen, reports } = await chooseWith({ nvenc: 1 }, { whyNot: () => 'no card is here', test: () => assert.fail('tried') });
	assert.equal(chosen, 'auto');
	assert.ok(reports.every((report) => report.kind === 'refused' && report.why === 'no card is here'));
});
