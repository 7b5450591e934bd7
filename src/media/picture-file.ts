/** Reads a picture (PNG, JPEG or whatever else ffmpeg knows) at a size: the same program that writes files. */
import { spawn } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { TurbocastError } from '../protocol/errors.js';
import { ffmpegPath } from './ffmpeg-program.js';

/** Longer than this a single picture does not take. */
const MAX_READ_MS = 60_000;
/** Largest side of a picture that is read, pixels. */
const MAX_SIDE = 16_384;
/** What ffmpeg prints of a file, at most. */
const MAX_REPORT_BYTES = 64 * 1024;

export type Picture = {
	/** Pixels of the file. */
	readonly width: number;
	readonly height: number;
	/** RGB bytes [height, width, 3], scaled bilinearly; proportions are not kept. Throws `invalid_option`. */
	readonly read: (size: { readonly width: number; readonly height: number }) => Promise<Uint8Array>;
};

const run = (program: string, args: readonly string[], maxBytes: number): Promise<{ readonly output: Buffer; readonly report: string }> =>
	new Promise((resolve, reject) => {
		const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: MAX_READ_MS });
		const parts: Buffer[] = [];
		let [bytes, report] = [0, ''];
		child.stdout.on('data', (part: Buffer) => {
			bytes += part.length;
			if (bytes <= maxBytes) {
				parts.push(part);
			}
		});
		child.stderr.on('data', (part: Buffer) => {
			report = (report + part.toString()).slice(-MAX_REPORT_BYTES);
		});
		child.on('error', reject);
		child.on('close', () => resolve({ output: Buffer.concat(parts), report }));
	});

const refuse = (path: string, why: string): never => {
	throw new TurbocastError('invalid_option', `${path} ${why}; give a PNG or JPEG file.`);
};

/** Looks at the file. Throws `invalid_option` when it is no picture. */
export const openPictureFile = async (path: string, configured: string): Promise<Picture> => {
	if (!(await stat(path).then((found) => found.isFile(), () => false))) {
		refuse(path, 'is not there');
	}
	const program = ffmpegPath('invalid_option', configured);
	// A name that looks like an address or an option is still a file.
	const input = ['-nostdin', '-hide_banner', '-protocol_whitelist', 'file', '-i', `file:${path}`];
	const { report } = await run(program, input, 0);
	const [, width = 0, height = 0] = /Stream #.*: Video: .*?[ ,](\d{1,5})x(\d{1,5})/u.exec(report)?.map(Number) ?? [];
	if (width === 0 || height === 0 || width > MAX_SIDE || height > MAX_SIDE) {
		refuse(path, width === 0 || height === 0 ? 'is no picture that can be read' : `has ${width}x${height} pixels, more than ${MAX_SIDE} a side`);
	}
	return {
		width, height,
		read: async (size) => {
			const bytes = 3 * size.width * size.height;
			const { output } = await run(program, [...input, '-frames:v', '1', '-vf', `scale=${size.width}:${size.height}:flags=bilinear+accurate_rnd+full_chroma_int`, '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'], bytes);
			return output.length === bytes ? new Uint8Array(output) : refuse(path, 'is damaged');
		},
	};
};
