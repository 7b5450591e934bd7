/**
 * MP4 by an ffmpeg child process: H.264 High, 4:2:0, tagged BT.709 limited range, index in front of the media so that a
 * browser plays it while it loads. One thread and `bitexact`, so that the same pictures give the same bytes on any machine.
 */
import { spawn } from 'node:child_process';
import { TurbocastError } from '../protocol/errors.js';
import { BT709_ARGUMENTS } from './encoders/ffmpeg.js';
import { ffmpegPath } from './ffmpeg-program.js';
import type { FileSink, OpenFileSink, VideoFormat } from './file-sink.js';

/** Constant rate factor of x264: 17 is generally taken as visually lossless. */
const QUALITY = 17;
const MOST_COMPLAINT_LENGTH = 500;

const commandLine = (path: string, { width, height, fps }: VideoFormat): string[] => [
	'-hide_banner', '-loglevel', 'error', '-nostdin', '-y',
	'-f', 'rawvideo', '-pix_fmt', 'yuv420p', '-video_size', `${width}x${height}`, '-framerate', String(fps), ...BT709_ARGUMENTS, '-i', 'pipe:0',
	'-c:v', 'libx264', '-preset', 'medium', '-profile:v', 'high', '-crf', String(QUALITY), '-pix_fmt', 'yuv420p', '-threads', '1',
	...BT709_ARGUMENTS, '-chroma_sample_location', 'center',
	'-map_metadata', '-1', '-fflags', '+bitexact', '-flags:v', '+bitexact',
	'-movflags', '+faststart+write_colr', '-f', 'mp4', path,
];

export const openMp4: OpenFileSink = (path, format): FileSink => {
	const child = spawn(ffmpegPath('output_failed', format.ffmpegPath), commandLine(path, format), { stdio: ['pipe', 'ignore', 'pipe'] });
	let complaint = '';
	child.stderr.setEncoding('utf8').on('data', (text: string) => {
		complaint = (complaint + text).slice(-MOST_COMPLAINT_LENGTH);
	});
	// A broken pipe shows in 'close', with more to say.
	child.stdin.on('error', () => undefined);
	let failure: TurbocastError | undefined;
	const ended = new Promise<void>((resolve) => {
		const end = (reason: string): void => {
			failure ??= new TurbocastError('output_failed', `ffmpeg could not write the file (${complaint.trim() === '' ? reason : complaint.trim()}); check the free space and the permissions.`);
			resolve();
		};
		child.once('error', (error) => end(error.message));
		child.once('close', (code, signal) => (code === 0 ? resolve() : end(`it ended with ${code ?? signal}`)));
	});
	return {
		write: async (data) => {
			if (failure === undefined) {
				// The callback comes when the pipe has taken the bytes: a slow ffmpeg makes the caller wait.
				const written = new Promise<void>((resolve) => child.stdin.write(data, () => resolve()));
				await Promise.race([written, ended]);
			}
			if (failure !== undefined) {
				throw failure;
			}
		},
		finish: async () => {
			child.stdin.end();
			await ended;
			if (failure !== undefined) {
				throw failure;
			}
		},
		destroy: async () => {
			child.kill('SIGKILL');
			await ended;
		},
	};
};
