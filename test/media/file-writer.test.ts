import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openVideoFile } from '../../src/media/file-writer.js';
import { psnrDb } from '../../src/media/psnr.js';
import { runFfmpeg, splitFrames } from './ffmpeg.js';
import { movingPicture } from './moving-picture.js';

const WIDTH = 128;
const HEIGHT = 96;
const FORMAT = { width: WIDTH, height: HEIGHT, fps: 16 };

const folder = await mkdtemp(join(tmpdir(), 'turbocast-file-writer-'));
after(() => rm(folder, { recursive: true }));
let next = 0;
const emptyFolder = (): Promise<string> => mkdtemp(join(folder, `${next++}-`));

const writeClip = async (path: string, frames: number): Promise<void> => {
	const file = await openVideoFile(path, FORMAT);
	for (let index = 0; index < frames; index += 1) {
		await file.write(movingPicture(index, WIDTH, HEIGHT));
	}
	await file.close();
};

/** Offsets of the top boxes (ISO/IEC 14496-12 section 4.2). */
const boxes = (bytes: Buffer): string[] => {
	const names: string[] = [];
	for (let at = 0; at + 8 <= bytes.length; at += bytes.readUInt32BE(at)) {
		names.push(bytes.toString('latin1', at + 4, at + 8));
	}
	return names;
};

test('an .mp4 has every frame, at 16 frames a second, in H.264 yuv420p BT.709 limited range', async () => {
	const path = join(await emptyFolder(), 'clip.mp4');
	await writeClip(path, 33);
	const { output, text } = await runFfmpeg(['-i', path, '-vsync', '0', '-f', 'rawvideo', 'pipe:1']);
	assert.match(text, /Video: h264 \(High\).*yuv420p\(tv, bt709\), 128x96.*\b16 fps/u);
	const frames = splitFrames(output, WIDTH, HEIGHT);
	assert.equal(frames.length, 33);
	for (const [index, frame] of frames.entries()) {
		const psnr = psnrDb(frame, movingPicture(index, WIDTH, HEIGHT).data);
		assert.ok(psnr >= 40, `frame ${index} has ${psnr.toFixed(1)} dB`);
	}
});

test('the index of an .mp4 comes before its media, and carries the colours', async () => {
	const path = join(await emptyFolder(), 'clip.mp4');
	await writeClip(path, 4);
	const bytes = await readFile(path);
	const names = boxes(bytes);
	assert.ok(names.indexOf('moov') >= 0 && names.indexOf('moov') < names.indexOf('mdat'), names.join());
	// colr box, type nclx: primaries 1, transfer 1, matrix 1, limited range (ISO/IEC 14496-12 section 12.1.5).
	assert.ok(bytes.includes(Buffer.from('colrnclx\0\x01\0\x01\0\x01\0', 'latin1')));
});

test('the same frames give the same bytes', async () => {
	for (const name of ['clip.mp4', 'clip.y4m']) {
		const [a, b] = [join(await emptyFolder(), name), join(await emptyFolder(), name)];
		await writeClip(a, 12);
		await writeClip(b, 12);
		assert.ok((await readFile(a)).equals(await readFile(b)), name);
	}
});

test('a .y4m holds the frames bit for bit under a header that ffmpeg reads', async () => {
	const path = join(await emptyFolder(), 'clip.Y4M');
	await writeClip(path, 5);
	assert.match((await readFile(path)).toString('latin1', 0, 100), /^YUV4MPEG2 W128 H96 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\nFRAME\n/u);
	const { output } = await runFfmpeg(['-i', path, '-f', 'rawvideo', 'pipe:1']);
	assert.deepEqual(splitFrames(output, WIDTH, HEIGHT).map((frame, index) => psnrDb(frame, movingPicture(index, WIDTH, HEIGHT).data)), [Infinity, Infinity, Infinity, Infinity, Infinity]);
});

test('nothing is left after abort, and an older file of that name stays', async () => {
	for (const name of ['clip.mp4', 'clip.y4m']) {
		const place = await emptyFolder();
		await writeFile(join(place, name), 'older');
		const file = await openVideoFile(join(place, name), FORMAT);
		await file.write(movingPicture(0, WIDTH, HEIGHT));
		await Promise.all([file.abort(), file.abort()]);
		await assert.rejects(file.write(movingPicture(1, WIDTH, HEIGHT)), { code: 'output_failed' });
		assert.deepEqual(await readdir(place), [name]);
		assert.equal(await readFile(join(place, name), 'utf8'), 'older');
	}
});

test('close is idempotent, and abort after it leaves the file', async () => {
	const place = await emptyFolder();
	const file = await openVideoFile(join(place, 'clip.mp4'), FORMAT);
	await file.write(movingPicture(0, WIDTH, HEIGHT));
	await Promise.all([file.close(), file.close()]);
	await file.abort();
	assert.deepEqual(await readdir(place), ['clip.mp4']);
});

test('a file without pictures is refused and leaves nothing', async () => {
	const place = await emptyFolder();
	const file = await openVideoFile(join(place, 'clip.mp4'), FORMAT);
	await assert.rejects(file.close(), { code: 'output_failed', message: /No picture/u });
	assert.deepEqual(await readdir(place), []);
});

test('an unknown extension is an invalid option that names the known ones', async () => {
	await assert.rejects(openVideoFile(join(folder, 'clip.avi'), FORMAT), { code: 'invalid_option', message: /\.mp4 or \.y4m/u });
	await assert.rejects(openVideoFile(join(folder, 'clip'), FORMAT), { code: 'invalid_option' });
	await assert.rejects(openVideoFile(join(folder, 'clip.mp4'), { ...FORMAT, width: 127 }), { code: 'invalid_option' });
});

test('a place that cannot be written to is told at once, with what to do', async () => {
	await assert.rejects(openVideoFile(join(folder, 'missing', 'clip.mp4'), FORMAT), { code: 'output_failed', message: /create it or choose another place/u });
	await assert.rejects(openVideoFile(join(folder, `${'x'.repeat(300)}.mp4`), FORMAT), { code: 'output_failed', message: /shorter/u });
});

test('an ffmpeg that dies on the way is an output failure, and nothing is left', async () => {
	const place = await emptyFolder();
	const file = await openVideoFile(join(place, 'clip.mp4'), { ...FORMAT, ffmpegPath: '/bin/false' });
	await assert.rejects((async () => {
		for (let index = 0; index < 100; index += 1) {
			await file.write(movingPicture(index, WIDTH, HEIGHT));
		}
		await file.close();
	})(), { code: 'output_failed' });
	await file.abort();
	assert.deepEqual(await readdir(place), []);
});

test('a picture of another size is refused', async () => {
	const place = await emptyFolder();
	const file = await openVideoFile(join(place, 'clip.y4m'), FORMAT);
	await assert.rejects(file.write(movingPicture(0, 64, 64)), { code: 'output_failed', message: /128x96/u });
	await file.abort();
});
