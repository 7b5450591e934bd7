/** Runs the ffmpeg program of the package, the independent decoder of these tests. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { i420Bytes, type EncodedChunk } from '../../src/base/frame.js';
import { ivfFileHeader, ivfFrameHeader } from '../../src/media/encoders/ivf.js';
import { ffmpegPath } from '../../src/media/ffmpeg-program.js';

/** Standard output of ffmpeg fed with `input`; throws with what it wrote to standard error when it fails. `text` is standard error. */
export const runFfmpeg = async (args: readonly string[], input?: Uint8Array): Promise<{ output: Buffer; text: string }> => {
	const child = spawn(ffmpegPath('internal'), ['-hide_banner', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
	const output: Buffer[] = [];
	let text = '';
	child.stdout.on('data', (bytes: Buffer) => output.push(bytes));
	child.stderr.setEncoding('utf8').on('data', (piece: string) => {
		text += piece;
	});
	child.stdin.on('error', () => undefined);
	child.stdin.end(input);
	const [code] = (await once(child, 'close')) as [number];
	if (code !== 0) {
		throw new Error(`ffmpeg ended with ${code}: ${text}`);
	}
	return { output: Buffer.concat(output), text };
};

export const splitFrames = (raw: Uint8Array, width: number, height: number): Uint8Array[] => {
	const bytes = i420Bytes(width, height);
	return Array.from({ length: Math.floor(raw.length / bytes) }, (_, index) => raw.subarray(index * bytes, (index + 1) * bytes));
};

/** Decodes access units back to I420 pictures; `text` is what ffmpeg says about the stream. */
export const decodeChunks = async (chunks: readonly EncodedChunk[], width: number, height: number): Promise<{ frames: Uint8Array[]; text: string }> => {
	const isVp8 = chunks[0]?.codec === 'vp8';
	const input = isVp8
		? Buffer.concat([ivfFileHeader('VP80', width, height, 16), ...chunks.flatMap((chunk, index) => [ivfFrameHeader(chunk.data.length, index), chunk.data])])
		: Buffer.concat(chunks.map((chunk) => chunk.data));
	const { output, text } = await runFfmpeg(['-f', isVp8 ? 'ivf' : 'h264', '-i', 'pipe:0', '-vsync', '0', '-pix_fmt', 'yuv420p', '-f', 'rawvideo', 'pipe:1'], input);
	return { frames: splitFrames(output, width, height), text };
};
