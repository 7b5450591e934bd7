/** Frames that the network of the model generated, at any size and as many as are wanted: made once, and kept in a file. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { i420Bytes, type RawFrame } from '../src/base/frame.js';
import { ffmpegPath } from '../src/media/ffmpeg-program.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SECONDS = 8;
const PROMPTS = ['a cat jumps on the beach at night', 'a rocket flies in the snow', 'a bee bounces at night', 'a whale spins in the sea'];

/** Half of a bench's frames show another prompt, so that the picture changes as it does when somebody edits. */
const makeFile = (width: number, height: number): string => {
	const folder = join(tmpdir(), 'turbocast-bench');
	const file = join(folder, `frames-${width}x${height}.i420`);
	if (!existsSync(file)) {
		mkdirSync(folder, { recursive: true });
		const [clip, scaled] = [join(folder, `frames-${process.pid}.y4m`), `${file}.${process.pid}`];
		const edits = PROMPTS.slice(1).flatMap((prompt, index) => ['--at', String((SECONDS * (index + 1)) / PROMPTS.length), prompt]);
		execFileSync(process.execPath, [join(ROOT, 'bin/turbocast.mjs'), 'generate', PROMPTS[0] ?? '', '--seconds', String(SECONDS), '--seed', '1', '--out', clip, ...edits], { cwd: ROOT, stdio: 'ignore' });
		execFileSync(ffmpegPath('invalid_request'), ['-loglevel', 'error', '-y', '-i', clip, '-vf', `scale=${width}:${height}:flags=lanczos`, '-f', 'rawvideo', '-pix_fmt', 'yuv420p', scaled]);
		renameSync(scaled, file);
	}
	return file;
};

/** Forwards and backwards without end: no jump where the clip begins again. */
export const frameSource = (width: number, height: number): ((frameId: number) => RawFrame) => {
	const bytes = readFileSync(makeFile(width, height));
	const size = i420Bytes(width, height);
	const count = Math.floor(bytes.length / size);
	return (frameId) => {
		const at = frameId % (2 * count - 2);
		const index = at < count ? at : 2 * count - 2 - at;
		return { frameId, chunkIndex: 0, indexInChunk: frameId, width, height, data: bytes.subarray(index * size, (index + 1) * size), generatedAtMs: performance.now() };
	};
};
