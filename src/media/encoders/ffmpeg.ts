/**
 * The encoder that is always there: one ffmpeg child process per encoder, raw pictures in, a container with lengths out (FLV
 * for H.264, IVF for VP8), so that a picture is complete as soon as it is encoded.
 *
 * ffmpeg has no way to be asked for a key frame, so the request travels in the time stamp: times count half frames, and the
 * expression given to `-force_key_frames` forces a key frame at odd ones (and x264 is told the true rate, which it would
 * otherwise take from the time base). Probing must stay on its defaults but for
 * `-fpsprobesize 0`: with `nobuffer` or a tiny probe size ffmpeg holds one frame back. A new bitrate needs a new process
 * (measured 20-35 ms), which begins with a key frame.
 */
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { i420Bytes, type VideoCodec } from '../../base/frame.js';
import { TurbocastError } from '../../protocol/errors.js';
import type { EncoderOptions } from '../encoder.js';
import { ffmpegPath } from '../ffmpeg-program.js';
import { FlvReader } from './flv.js';
import { ENDLESS_GROUP, RATE_BUFFER_SECONDS, VP8_OPTIONS, X264_OPTIONS, type EncoderLibrary, type FrameEncoder, type Picture } from './frame-encoder.js';
import { ivfFileHeader, ivfFrameHeader, IvfReader } from './ivf.js';

const NAL_TYPE_IDR = 5;
/** Only the end of what ffmpeg complained about is kept for the message. */
const MOST_COMPLAINT_LENGTH = 500;

/** Arguments that tag a stream as ITU-R BT.709, limited range. */
export const BT709_ARGUMENTS = ['-color_range', 'tv', '-colorspace', 'bt709', '-color_primaries', 'bt709', '-color_trc', 'bt709'] as const;

const dashed = (options: { readonly [name: string]: string }): string[] => Object.entries(options).flatMap(([name, value]) => [`-${name}`, value]);

/** How one program encodes H.264. */
type H264Encoder = { readonly before: readonly string[]; readonly after: (fps: number) => readonly string[] };

const X264: H264Encoder = {
	before: [],
	after: (fps) => ['-c:v', 'libx264', ...dashed({ ...X264_OPTIONS, 'x264-params': `${X264_OPTIONS['x264-params']}:fps=${Math.round(fps)}` })],
};

/** Pictures go to the card with `hwupload`. 578: constrained baseline. Headers are repeated with each key frame, for whoever joins there. */
const vaapi = (device: string, hasAsyncDepth: boolean): H264Encoder => ({
	before: ['-vaapi_device', device],
	after: () => ['-vf', 'format=nv12,hwupload', '-c:v', 'h264_vaapi', '-profile:v', '578', ...(hasAsyncDepth ? ['-async_depth', '1'] : []), '-bsf:v', 'dump_extra'],
});

const commandLine = (h264: H264Encoder, { codec, fps }: EncoderOptions, bitrateBps: number): string[] => [
	'-hide_banner', '-loglevel', 'error', '-nostdin', ...(codec === 'h264' ? h264.before : []),
	'-fpsprobesize', '0', '-f', 'ivf', '-i', 'pipe:0',
	'-vsync', '0', '-enc_time_base', '-1',
	'-force_key_frames', `expr:mod(round(t*${2 * Math.round(fps)}),2)`,
	...(codec === 'h264' ? h264.after(fps) : ['-c:v', 'libvpx', ...dashed(VP8_OPTIONS)]),
	'-threads', '1', '-g', String(ENDLESS_GROUP), '-bf', '0',
	'-b:v', String(bitrateBps), '-maxrate', String(bitrateBps), '-bufsize', String(Math.round(bitrateBps * RATE_BUFFER_SECONDS)),
	...BT709_ARGUMENTS,
	'-flush_packets', '1',
	...(codec === 'h264' ? ['-f', 'flv', '-flvflags', 'no_duration_filesize'] : ['-f', 'ivf']),
	'pipe:1',
];

const isKeyframe = (codec: EncoderOptions['codec'], data: Buffer): boolean => {
	if (codec === 'vp8') {
		// RFC 6386 section 9.1: the lowest bit of the frame tag is 0 in key frames.
		return ((data[0] ?? 1) & 1) === 0;
	}
	for (let at = data.indexOf('\0\0\x01', 0, 'latin1'); at >= 0; at = data.indexOf('\0\0\x01', at + 3, 'latin1')) {
		if (((data[at + 3] ?? 0) & 0x1f) === NAL_TYPE_IDR) {
			return true;
		}
	}
	return false;
};

type Program = { readonly program: string; readonly h264: H264Encoder };

/** One run of ffmpeg. */
class FfmpegRun {
	readonly #options: EncoderOptions;
	readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
	readonly #ended: Promise<unknown>;
	#waiting: { readonly resolve: (picture: Picture) => void; readonly reject: (error: Error) => void } | undefined;
	#frames = 0;
	#complaint = '';
	failed: TurbocastError | undefined;

	constructor({ program, h264 }: Program, options: EncoderOptions, bitrateBps: number) {
		this.#options = options;
		const child = spawn(program, commandLine(h264, options, bitrateBps), { stdio: ['pipe', 'pipe', 'pipe'] });
		this.#child = child;
		const reader = options.codec === 'h264' ? new FlvReader() : new IvfReader();
		child.stdout.on('data', (bytes: Buffer) => {
			for (const data of reader.push(bytes)) {
				this.#waiting?.resolve({ data: Uint8Array.from(data), isKeyframe: isKeyframe(options.codec, data) });
				this.#waiting = undefined;
			}
		});
		child.stderr.setEncoding('utf8').on('data', (text: string) => {
			this.#complaint = (this.#complaint + text).slice(-MOST_COMPLAINT_LENGTH);
		});
		// A broken pipe is told by 'close' too, with more to say.
		child.stdin.on('error', () => undefined);
		this.#ended = new Promise((resolve) => {
			child.once('error', (error) => {
				this.#complaint = error.message;
				resolve(undefined);
			});
			child.once('close', resolve);
		}).then(() => this.#fail());
		child.stdin.write(ivfFileHeader('I420', options.width, options.height, 2 * Math.round(options.fps)));
	}

	encode(data: Uint8Array, keyframe: boolean): Promise<Picture> {
		return new Promise((resolve, reject) => {
			if (this.failed !== undefined) {
				reject(this.failed);
				return;
			}
			this.#waiting = { resolve, reject };
			// The first frame of a run is a key frame anyway.
			const time = 2 * this.#frames + (keyframe && this.#frames > 0 ? 1 : 0);
			this.#frames += 1;
			this.#child.stdin.write(ivfFrameHeader(data.byteLength, time));
			this.#child.stdin.write(data);
		});
	}

	#fail(): void {
		this.failed ??= new TurbocastError('encoder_failed', `ffmpeg stopped encoding ${this.#options.width}x${this.#options.height} ${this.#options.codec}${this.#complaint === '' ? '' : ` (${this.#complaint.trim()})`}; it is started again for the next frame.`);
		this.#waiting?.reject(this.failed);
		this.#waiting = undefined;
	}

	async close(): Promise<void> {
		this.failed ??= new TurbocastError('encoder_failed', 'The encoder is closed.');
		this.#child.stdin.destroy();
		this.#child.kill('SIGKILL');
		await this.#ended;
	}
}

const openEncoder = (program: Program, options: EncoderOptions): FrameEncoder => {
	let bitrateBps = options.bitrateBps;
	let run: FfmpegRun | undefined = new FfmpegRun(program, options, bitrateBps);
	let closed = false;
	return {
		encode: async (data, wanted) => {
			if (closed) {
				throw new TurbocastError('encoder_failed', 'The encoder is closed.');
			}
			if (run === undefined || run.failed !== undefined || wanted.bitrateBps !== bitrateBps) {
				await run?.close();
				bitrateBps = wanted.bitrateBps;
				run = new FfmpegRun(program, options, bitrateBps);
			}
			return await run.encode(data, wanted.keyframe);
		},
		close: async () => {
			closed = true;
			await run?.close();
			run = undefined;
		},
	};
};

/** All that a run of the program writes, fed with `input`. */
const outputOf = async (program: string, args: readonly string[], input: Uint8Array): Promise<Buffer> => {
	const child = spawn(program, ['-hide_banner', '-loglevel', 'error', ...args], { stdio: ['pipe', 'pipe', 'ignore'] });
	const output: Buffer[] = [];
	child.stdout.on('data', (bytes: Buffer) => output.push(bytes));
	child.stdin.on('error', () => undefined);
	child.stdin.end(input);
	await once(child, 'close').catch(() => undefined);
	return Buffer.concat(output);
};

const decode = async (program: string, codec: VideoCodec, { width, height }: { readonly width: number; readonly height: number }, units: readonly Uint8Array[]): Promise<Uint8Array[]> => {
	const input = codec === 'h264' ? units : [ivfFileHeader('VP80', width, height, 1), ...units.flatMap((unit, index) => [ivfFrameHeader(unit.byteLength, index), unit])];
	const raw = await outputOf(program, ['-f', codec === 'h264' ? 'h264' : 'ivf', '-i', 'pipe:0', '-vsync', '0', '-pix_fmt', 'yuv420p', '-f', 'rawvideo', 'pipe:1'], Buffer.concat(input));
	const bytes = i420Bytes(width, height);
	return Array.from({ length: Math.floor(raw.byteLength / bytes) }, (_, index) => raw.subarray(index * bytes, (index + 1) * bytes));
};

/** Finds the program: `configuredPath`, or the package's when empty. `vaapiDevice`: encodes H.264 on that card. Rejects with `encoder_failed`. */
export const loadFfmpeg = async (configuredPath: string, vaapiDevice?: string): Promise<EncoderLibrary> => {
	const program = ffmpegPath('encoder_failed', configuredPath);
	const h264 = vaapiDevice === undefined ? X264 : vaapi(vaapiDevice, (await outputOf(program, ['-h', 'encoder=h264_vaapi'], new Uint8Array())).includes('async_depth'));
	return {
		open: (options) => Promise.resolve(openEncoder({ program, h264 }, options)),
		decode: (codec, size, units) => decode(program, codec, size, units),
	};
};
