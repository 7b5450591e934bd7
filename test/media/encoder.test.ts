/** What every encoder promises, tried on each of them. */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { VIDEO_CODECS, type EncodedChunk, type VideoCodec } from '../../src/base/frame.js';
import { silentLog, type Log } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { startEncoders, type EncoderHost } from '../../src/media/encoder-host.js';
import type { VideoEncoder } from '../../src/media/encoder.js';
import { ENCODER_IMPLEMENTATIONS, HARDWARE_ENCODERS, type EncoderImplementation } from '../../src/media/encoders/frame-encoder.js';
import { ffmpegPath } from '../../src/media/ffmpeg-program.js';
import { psnrDb } from '../../src/media/psnr.js';
import { decodeChunks } from './ffmpeg.js';
import { movingPicture } from './moving-picture.js';

const WIDTH = 128;
const HEIGHT = 96;

const encodeMany = (encoder: VideoEncoder, first: number, count: number, grain = 0): Promise<EncodedChunk[]> =>
	Promise.all(Array.from({ length: count }, (_, index) => encoder.encode(movingPicture(first + index, WIDTH, HEIGHT, grain), (first + index) * 5625)));

/** A host that waits half as long as the service does. */
const hastyHost = async (implementation: EncoderImplementation): Promise<{ readonly host: EncoderHost } & AsyncDisposable> => {
	const host = await startEncoders({ implementation, log: silentLog, clock: systemClock, hangTimeoutMs: 5000 });
	return { host, [Symbol.asyncDispose]: () => host.close() };
};

const isEncoderFailure = { name: 'TurbocastError', code: 'encoder_failed' };

for (const implementation of ENCODER_IMPLEMENTATIONS) {
	describe(`the ${implementation} encoder`, { concurrency: false }, async () => {
		let host: EncoderHost;
		try {
			host = await startEncoders({ implementation, log: silentLog, clock: systemClock });
		} catch (error) {
			test('starts', { skip: implementation === 'ffmpeg' ? false : `it does not work here: ${String(error)}` }, () => {
				throw error;
			});
			return;
		}
		after(() => host.close());
		const open = (codec: VideoCodec, bitrateBps = 600_000): Promise<VideoEncoder> => host.open({ codec, width: WIDTH, height: HEIGHT, fps: 16, bitrateBps });

		for (const codec of VIDEO_CODECS) {
			test(`${codec}: answers one frame at a time, without waiting for the next`, async () => {
				const encoder = await open(codec);
				for (let index = 0; index < 3; index += 1) {
					const chunk = await encoder.encode(movingPicture(index, WIDTH, HEIGHT), index * 5625);
					assert.equal(chunk.frameId, index);
				}
				await encoder.close();
			});

			test(`${codec}: keeps order, ids and times, and only the first frame is a key frame`, async () => {
				const encoder = await open(codec);
				const chunks = await encodeMany(encoder, 40, 24);
				assert.deepEqual(chunks.map((chunk) => chunk.frameId), Array.from({ length: 24 }, (_, index) => 40 + index));
				assert.deepEqual(chunks.map((chunk) => chunk.rtpTimestamp), Array.from({ length: 24 }, (_, index) => (40 + index) * 5625));
				assert.deepEqual(chunks.map((chunk) => chunk.isKeyframe), Array.from({ length: 24 }, (_, index) => index === 0));
				assert.ok(chunks.every((chunk) => chunk.codec === codec && chunk.encodeMs >= 0));
				await encoder.close();
			});

			test(`${codec}: decodes to what went in`, async () => {
				const encoder = await open(codec);
				const chunks = await encodeMany(encoder, 0, 24);
				await encoder.close();
				const { frames } = await decodeChunks(chunks, WIDTH, HEIGHT);
				assert.equal(frames.length, 24);
				for (const [index, frame] of frames.entries()) {
					const psnr = psnrDb(frame, movingPicture(index, WIDTH, HEIGHT).data);
					assert.ok(psnr >= 30, `frame ${index} has ${psnr.toFixed(1)} dB`);
				}
			});

			test(`${codec}: a key frame comes exactly where it is asked for, and can be joined there`, async () => {
				const encoder = await open(codec);
				const chunks: EncodedChunk[] = [];
				for (let index = 0; index < 20; index += 1) {
					if (index === 7 || index === 13) {
						encoder.requestKeyframe();
					}
					chunks.push(await encoder.encode(movingPicture(index, WIDTH, HEIGHT), index * 5625));
				}
				await encoder.close();
				assert.deepEqual(chunks.filter((chunk) => chunk.isKeyframe).map((chunk) => chunk.frameId), [0, 7, 13]);
				const { frames } = await decodeChunks(chunks.slice(13), WIDTH, HEIGHT);
				assert.ok(psnrDb(frames.at(-1) as Uint8Array, movingPicture(19, WIDTH, HEIGHT).data) >= 30);
			});

			test(`${codec}: the bitrate is kept, and a new one shows in the size of the frames`, async () => {
				const encoder = await open(codec, 1_500_000);
				const before = await encodeMany(encoder, 0, 48, 30);
				encoder.setBitrate(100_000);
				const after = await encodeMany(encoder, 48, 48, 30);
				await encoder.close();
				const bytes = (chunks: EncodedChunk[]): number => chunks.slice(-24).reduce((sum, chunk) => sum + chunk.data.length, 0);
				assert.ok(bytes(after) < bytes(before) / 2, `${bytes(before)} bytes before, ${bytes(after)} after`);
				const kbps = (bytes(after) * 8 * 16) / 24 / 1000;
				assert.ok(kbps > 65 && kbps < 150, `${kbps} kbit/s of 100`);
				assert.ok(implementation !== 'node-av' || codec !== 'h264' || !after.some((chunk) => chunk.isKeyframe), 'x264 needs no key frame for it');
			});
		}

		test('h264: says BT.709, limited range, baseline, and that no picture is reordered', async () => {
			const encoder = await open('h264');
			const chunks = await encodeMany(encoder, 0, 2);
			await encoder.close();
			const { text } = await decodeChunks(chunks, WIDTH, HEIGHT);
			assert.match(text, /h264 \((?:Constrained )?Baseline\), yuv420p\(tv, bt709/u);
			const nalTypes = [...Buffer.from(chunks[0]?.data ?? []).toString('latin1').matchAll(/\0\0\x01(.)/gsu)].map((match) => (match[1]?.charCodeAt(0) ?? 0) & 0x1f);
			assert.deepEqual(nalTypes.filter((type) => type !== 6), [7, 8, 5]);
		});

		test('several encoders live side by side', async () => {
			const [a, b] = await Promise.all([open('h264'), open('vp8')]);
			const [fromA, fromB] = await Promise.all([encodeMany(a, 0, 12), encodeMany(b, 100, 12)]);
			assert.deepEqual(fromA.map((chunk) => [chunk.codec, chunk.frameId]), Array.from({ length: 12 }, (_, index) => ['h264', index]));
			assert.deepEqual(fromB.map((chunk) => [chunk.codec, chunk.frameId]), Array.from({ length: 12 }, (_, index) => ['vp8', 100 + index]));
			await Promise.all([a.close(), b.close()]);
		});

		test('refuses a size that no encoder takes, and a frame of another size', async () => {
			await assert.rejects(host.open({ codec: 'h264', width: 127, height: 96, fps: 16, bitrateBps: 500_000 }), isEncoderFailure);
			const encoder = await open('h264');
			await assert.rejects(encoder.encode(movingPicture(0, 64, 64), 0), isEncoderFailure);
			assert.equal((await encoder.encode(movingPicture(1, WIDTH, HEIGHT), 0)).frameId, 1);
			await encoder.close();
		});

		test('close is idempotent; frames in flight and later ones reject', async () => {
			const encoder = await open('h264');
			const inFlight = encodeMany(encoder, 0, 20);
			const rejected = assert.rejects(inFlight, isEncoderFailure);
			await Promise.all([encoder.close(), encoder.close()]);
			await rejected;
			await assert.rejects(encoder.encode(movingPicture(0, WIDTH, HEIGHT), 0), isEncoderFailure);
		});

		test('a killed encoder process is started again, and the next frame is a key frame', async () => {
			const encoder = await open('h264');
			await encodeMany(encoder, 0, 4);
			const { pid } = host;
			assert.ok(pid !== undefined);
			// Stopped first, so that the frame is surely in flight when the process dies.
			process.kill(pid, 'SIGSTOP');
			const rejected = assert.rejects(encoder.encode(movingPicture(4, WIDTH, HEIGHT), 0), isEncoderFailure);
			await new Promise((resolve) => setImmediate(resolve));
			process.kill(pid, 'SIGKILL');
			await rejected;
			const next = await encoder.encode(movingPicture(6, WIDTH, HEIGHT), 0);
			assert.equal(next.isKeyframe, true);
			assert.notEqual(host.pid, pid);
			const more = await encodeMany(encoder, 7, 4);
			const { frames } = await decodeChunks([next, ...more], WIDTH, HEIGHT);
			assert.ok(psnrDb(frames.at(-1) as Uint8Array, movingPicture(10, WIDTH, HEIGHT).data) >= 30);
			await encoder.close();
		});

		test('a process that hangs is ended in bounded time, and the next frame is a key frame', async () => {
			await using hasty = await hastyHost(implementation);
			const encoder = await hasty.host.open({ codec: 'h264', width: WIDTH, height: HEIGHT, fps: 16, bitrateBps: 600_000 });
			await encodeMany(encoder, 0, 4);
			const { pid } = hasty.host;
			assert.ok(pid !== undefined);
			process.kill(pid, 'SIGSTOP');
			await assert.rejects(encoder.encode(movingPicture(4, WIDTH, HEIGHT), 0), isEncoderFailure);
			assert.equal((await encoder.encode(movingPicture(5, WIDTH, HEIGHT), 0)).isKeyframe, true);
			assert.notEqual(hasty.host.pid, pid);
		});
	});
}

test('auto takes an encoder that works, and says which and why no other in one line', async () => {
	const lines: { readonly implementation?: string; readonly why?: string }[] = [];
	const log: Log = { ...silentLog, info: (fields: object) => void lines.push(fields) };
	const host = await startEncoders({ implementation: 'auto', log, clock: systemClock });
	const [line] = lines;
	assert.equal(line?.implementation, host.implementation);
	assert.match(line?.why ?? '', new RegExp(`${host.implementation} works \\(\\d+\\.\\d ms a frame, \\d+\\.\\d dB\\)`, 'u'));
	for (const hardware of HARDWARE_ENCODERS) {
		assert.match(line?.why ?? '', new RegExp(`${hardware} (?:is not used: \\w|works)`, 'u'));
	}
	await Promise.all([host.close(), host.close()]);
	await assert.rejects(host.open({ codec: 'h264', width: 64, height: 64, fps: 16, bitrateBps: 500_000 }), isEncoderFailure);
});

test('an ffmpeg of one\'s own is used, and one that does not work is told at the start', async () => {
	await assert.rejects(startEncoders({ implementation: 'ffmpeg', ffmpegPath: '/nowhere/ffmpeg', log: silentLog, clock: systemClock }), isEncoderFailure);
	const host = await startEncoders({ implementation: 'ffmpeg', ffmpegPath: ffmpegPath('internal'), log: silentLog, clock: systemClock });
	assert.equal(host.implementation, 'ffmpeg');
	await host.close();
});

test('nothing of the encoder process outlives close', async () => {
	const host = await startEncoders({ implementation: 'ffmpeg', log: silentLog, clock: systemClock });
	await host.open({ codec: 'h264', width: 64, height: 64, fps: 16, bitrateBps: 500_000 });
	const { pid } = host;
	await host.close();
	assert.throws(() => process.kill(pid as number, 0), { code: 'ESRCH' });
});
