/**
 * The live encoder that measured best: FFmpeg's libraries in this process through `node-av`, with no frame of delay, key
 * frames at the exact frame, and (x264) a bitrate that changes without one. The package is optional and its binary is
 * GPL-licensed, so it is imported only here, only dynamically, and only inside the encoder process.
 *
 * Trap: a `Dictionary` given to `open2Sync` is freed twice and kills the process within seconds. Options therefore go
 * through `setOption` alone, and only the synchronous low-level calls are used.
 */
import { TurbocastError } from '../../protocol/errors.js';
import type { EncoderOptions } from '../encoder.js';
import { ENDLESS_GROUP, NVENC_OPTIONS, RATE_BUFFER_SECONDS, VIDEOTOOLBOX_OPTIONS, VP8_OPTIONS, X264_OPTIONS, type EncoderLibrary, type FrameEncoder, type Picture } from './frame-encoder.js';

/** The part of `node-av/lib` that is used. Written out, so that the code compiles where the optional package is missing. */
type Codec = { readonly name: string | null };
type NativeFrame = {
	width: number; height: number; format: number; pts: bigint; pictType: number;
	readonly alloc: () => void;
	readonly allocBuffer: () => number;
	readonly fromBuffer: (data: Buffer) => number;
	readonly toBuffer: () => Buffer;
	readonly free: () => void;
};
type NativePacket = { data: Buffer | null; readonly isKeyframe: boolean; readonly alloc: () => void; readonly unref: () => void; readonly free: () => void };
type CodecContext = {
	width: number; height: number; pixelFormat: number; timeBase: unknown; framerate: unknown; bitRate: bigint; gopSize: number;
	maxBFrames: number; threadCount: number; rcMaxRate: bigint; rcBufferSize: number;
	colorRange: number; colorPrimaries: number; colorTrc: number; colorSpace: number;
	readonly allocContext3: (codec: Codec) => void;
	readonly setOption: (name: string, value: string, type: number, search: number) => number;
	readonly open2Sync: (codec: Codec, options: null) => number;
	readonly sendFrameSync: (frame: NativeFrame) => number;
	readonly receivePacketSync: (packet: NativePacket) => number;
	readonly sendPacketSync: (packet: NativePacket | null) => number;
	readonly receiveFrameSync: (frame: NativeFrame) => number;
	readonly freeContext: () => void;
};
type Library = {
	readonly Codec: { readonly findEncoderByName: (name: string) => Codec | null; readonly findDecoderByName: (name: string) => Codec | null };
	readonly CodecContext: new () => CodecContext;
	readonly Frame: new () => NativeFrame;
	readonly Packet: new () => NativePacket;
	readonly Rational: new (num: number, den: number) => unknown;
	readonly Log: { readonly setLevel: (level: number) => void };
};
const CONSTANT_NAMES = [
	'AV_LOG_QUIET', 'AV_OPT_TYPE_STRING', 'AV_OPT_SEARCH_CHILDREN', 'AV_PIX_FMT_YUV420P', 'AV_PICTURE_TYPE_I', 'AV_PICTURE_TYPE_NONE',
	'AVCOL_RANGE_MPEG', 'AVCOL_PRI_BT709', 'AVCOL_TRC_BT709', 'AVCOL_SPC_BT709',
] as const;
type Constants = { readonly [name in (typeof CONSTANT_NAMES)[number]]: number };

const fail = (what: string, code?: number): never => {
	throw new TurbocastError('encoder_failed', `The node-av encoder could not ${what}${code === undefined ? '' : ` (FFmpeg error ${code})`}; the setting media.encoder: ffmpeg avoids it.`);
};

type NativeEncoder = { readonly name: string; readonly options: { readonly [name: string]: string }; /** Reads the rate of its context for each frame. */ readonly followsRate: boolean };

const LIBVPX: NativeEncoder = { name: 'libvpx', options: VP8_OPTIONS, followsRate: false };
/** What encodes H.264. Those in hardware take a new rate only with an IDR picture, if at all: they are opened anew, like libvpx. */
const H264_ENCODERS = {
	'node-av': { name: 'libx264', options: X264_OPTIONS, followsRate: true },
	'nvenc': { name: 'h264_nvenc', options: NVENC_OPTIONS, followsRate: false },
	'videotoolbox': { name: 'h264_videotoolbox', options: VIDEOTOOLBOX_OPTIONS, followsRate: false },
} as const satisfies { readonly [implementation: string]: NativeEncoder };
export type NodeAvImplementation = keyof typeof H264_ENCODERS;

const openContext = (av: Library, c: Constants, native: NativeEncoder, options: EncoderOptions, bitrateBps: number): CodecContext => {
	const { name } = native;
	const codec = av.Codec.findEncoderByName(name) ?? fail(`find ${name}`);
	const context = new av.CodecContext();
	context.allocContext3(codec);
	context.width = options.width;
	context.height = options.height;
	context.pixelFormat = c.AV_PIX_FMT_YUV420P;
	context.timeBase = new av.Rational(1, Math.round(options.fps));
	context.framerate = new av.Rational(Math.round(options.fps), 1);
	context.gopSize = ENDLESS_GROUP;
	context.maxBFrames = 0;
	context.threadCount = 1;
	// ITU-R BT.709-6, limited range; x264 writes them into the VUI of the parameter sets (ITU-T H.264 annex E).
	context.colorRange = c.AVCOL_RANGE_MPEG;
	context.colorPrimaries = c.AVCOL_PRI_BT709;
	context.colorTrc = c.AVCOL_TRC_BT709;
	context.colorSpace = c.AVCOL_SPC_BT709;
	setRate(context, bitrateBps);
	for (const [key, value] of Object.entries(native.options)) {
		const code = context.setOption(key, value, c.AV_OPT_TYPE_STRING, c.AV_OPT_SEARCH_CHILDREN);
		if (code < 0) {
			fail(`set ${key} of ${name}`, code);
		}
	}
	const code = context.open2Sync(codec, null);
	return code < 0 ? fail(`open ${name} for ${options.width}x${options.height}`, code) : context;
};

const setRate = (context: CodecContext, bitrateBps: number): void => {
	context.bitRate = BigInt(Math.round(bitrateBps));
	context.rcMaxRate = BigInt(Math.round(bitrateBps));
	context.rcBufferSize = Math.round(bitrateBps * RATE_BUFFER_SECONDS);
};

const openEncoder = (av: Library, c: Constants, native: NativeEncoder, options: EncoderOptions): FrameEncoder => {
	let bitrateBps = options.bitrateBps;
	let context: CodecContext | undefined = openContext(av, c, native, options, bitrateBps);
	let pts = 0n;
	const packet = new av.Packet();
	packet.alloc();

	const changeRate = (open: CodecContext, bps: number): CodecContext => {
		bitrateBps = bps;
		if (native.followsRate) {
			setRate(open, bps);
			return open;
		}
		// A new one begins with a key frame.
		open.freeContext();
		return openContext(av, c, native, options, bps);
	};

	const encode: FrameEncoder['encode'] = (data, wanted) => {
		if (context === undefined) {
			return Promise.reject(new TurbocastError('encoder_failed', 'The encoder is closed.'));
		}
		if (wanted.bitrateBps !== bitrateBps) {
			context = changeRate(context, wanted.bitrateBps);
		}
		const frame = new av.Frame();
		frame.alloc();
		frame.width = options.width;
		frame.height = options.height;
		frame.format = c.AV_PIX_FMT_YUV420P;
		frame.allocBuffer();
		frame.fromBuffer(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
		frame.pts = pts;
		frame.pictType = wanted.keyframe ? c.AV_PICTURE_TYPE_I : c.AV_PICTURE_TYPE_NONE;
		pts += 1n;
		const sent = context.sendFrameSync(frame);
		frame.free();
		if (sent < 0) {
			fail('take a frame', sent);
		}
		let picture: Picture | undefined;
		while (context.receivePacketSync(packet) === 0) {
			// Copied, because the packet's memory goes back to the library.
			picture = { data: Uint8Array.from(packet.data ?? []), isKeyframe: packet.isKeyframe };
			packet.unref();
		}
		return Promise.resolve(picture ?? fail('return the frame it was given'));
	};

	return {
		encode: (data, wanted) => {
			try {
				return encode(data, wanted);
			} catch (error) {
				return Promise.reject(TurbocastError.from(error, 'encoder_failed'));
			}
		},
		close: () => {
			context?.freeContext();
			if (context !== undefined) {
				packet.free();
			}
			context = undefined;
			return Promise.resolve();
		},
	};
};

const decode = (av: Library, codec: EncoderOptions['codec'], units: readonly Uint8Array[]): Uint8Array[] => {
	const found = av.Codec.findDecoderByName(codec) ?? fail(`find the decoder of ${codec}`);
	const context = new av.CodecContext();
	context.allocContext3(found);
	context.threadCount = 1;
	const code = context.open2Sync(found, null);
	if (code < 0) {
		fail(`open the decoder of ${codec}`, code);
	}
	const pictures: Uint8Array[] = [];
	const frame = new av.Frame();
	const drain = (): void => {
		for (;;) {
			frame.alloc();
			const isThere = context.receiveFrameSync(frame) === 0;
			if (isThere) {
				pictures.push(Uint8Array.from(frame.toBuffer()));
			}
			frame.free();
			if (!isThere) {
				return;
			}
		}
	};
	try {
		for (const unit of [...units, null]) {
			const packet = new av.Packet();
			packet.alloc();
			packet.data = unit === null ? null : Buffer.from(unit);
			context.sendPacketSync(unit === null ? null : packet);
			packet.free();
			drain();
		}
	} finally {
		context.freeContext();
	}
	return pictures;
};

/** Loads the package. Rejects when it is not installed or does not load here. */
export const loadNodeAv = async (implementation: NodeAvImplementation): Promise<EncoderLibrary> => {
	// In variables, because the compiler would otherwise ask for the package's own types.
	const [libraryName, constantsName] = ['node-av/lib', 'node-av/constants'];
	const load = (name: string): Promise<unknown> => import(name).catch((error: unknown) => {
		throw new TurbocastError('encoder_failed', `The package node-av is not installed or does not load here (${error instanceof Error ? error.message : String(error)}).`, { cause: error });
	});
	const av = (await load(libraryName)) as Library;
	const found = (await load(constantsName)) as { readonly [name: string]: unknown };
	const missing = CONSTANT_NAMES.filter((name) => typeof found[name] !== 'number');
	if (missing.length > 0) {
		fail(`be used: the installed version lacks ${missing.join(', ')}`);
	}
	const constants = found as Constants;
	av.Log.setLevel(constants.AV_LOG_QUIET);
	return {
		open: (options) => Promise.resolve(openEncoder(av, constants, options.codec === 'h264' ? H264_ENCODERS[implementation] : LIBVPX, options)),
		decode: (codec, _size, units) => Promise.resolve(decode(av, codec, units)),
	};
};
