/**
 * Pictures out of access units, by FFmpeg's libraries through `node-av`: an optional package of the application, imported only here, and only
 * when decoded frames are asked for. Its binary is GPL-licensed.
 */
import { TurbocastError } from '../../src/protocol/errors.js';
import type { NodeCodec } from './access-units.js';
import type { DecodedFrame, EncodedFrame } from './video-frame.js';

/** The part of `node-av/lib` that is used. Written out, so that the code compiles where the optional package is missing. */
type NativeCodec = { readonly name: string | null };
type NativePacket = { data: Buffer | null; pts: bigint; readonly alloc: () => void; readonly unref: () => void; readonly free: () => void };
type NativeFrame = { readonly width: number; readonly height: number; readonly toBuffer: () => Buffer; readonly alloc: () => void; readonly unref: () => void; readonly free: () => void };
type NativeContext = {
	threadCount: number;
	readonly allocContext3: (codec: NativeCodec) => void;
	readonly open2Sync: (codec: NativeCodec, options: null) => number;
	readonly sendPacketSync: (packet: NativePacket) => number;
	readonly receiveFrameSync: (frame: NativeFrame) => number;
	readonly freeContext: () => void;
};
type Library = {
	readonly Codec: { readonly findDecoderByName: (name: string) => NativeCodec | null };
	readonly CodecContext: new () => NativeContext;
	readonly Packet: new () => NativePacket;
	readonly Frame: new () => NativeFrame;
	readonly Log: { readonly setLevel: (level: number) => void };
};

const PACKAGE = 'node-av';
const QUIET = -8; // AV_LOG_QUIET
const DECODERS: { readonly [codec in NodeCodec]: string } = { h264: 'h264', vp8: 'vp8' };

const load = async (): Promise<Library> => {
	try {
		return (await import(`${PACKAGE}/lib`)) as Library;
	} catch (error) {
		throw new TurbocastError('not_supported', `Decoded frames need the package ${PACKAGE}: npm install ${PACKAGE}, or take encoded ones with frames().`, { cause: error });
	}
};

export type FrameDecoder = {
	/** In order, from a key frame on. `undefined` for what cannot be decoded. Throws `not_supported`. */
	readonly decode: (frame: EncodedFrame) => DecodedFrame | undefined;
	/** Idempotent. */
	readonly close: () => void;
};

/** Throws `not_supported` where the package is missing. */
export const openDecoder = async (): Promise<FrameDecoder> => {
	const av = await load();
	av.Log.setLevel(QUIET);
	const packet = new av.Packet();
	const picture = new av.Frame();
	let open: { readonly codec: NodeCodec; readonly context: NativeContext } | undefined;

	const contextFor = (codec: NodeCodec): NativeContext => {
		if (open?.codec === codec) {
			return open.context;
		}
		open?.context.freeContext();
		const found = av.Codec.findDecoderByName(DECODERS[codec]);
		if (found === null) {
			throw new TurbocastError('not_supported', `This build of ${PACKAGE} has no decoder for ${codec}.`);
		}
		const context = new av.CodecContext();
		context.allocContext3(found);
		// With more, frames come out as many later.
		context.threadCount = 1;
		const code = context.open2Sync(found, null);
		if (code < 0) {
			throw new TurbocastError('not_supported', `${PACKAGE} could not open its decoder for ${codec} (FFmpeg error ${code}).`);
		}
		open = { codec, context };
		return context;
	};

	return {
		decode: (frame) => {
			const context = contextFor(frame.codec);
			packet.alloc();
			packet.data = Buffer.from(frame.data.buffer, frame.data.byteOffset, frame.data.byteLength);
			const sent = context.sendPacketSync(packet);
			packet.free();
			picture.alloc();
			try {
				if (sent < 0 || context.receiveFrameSync(picture) < 0) {
					return undefined;
				}
				return { ...frame, kind: 'decoded', width: picture.width, height: picture.height, pixels: picture.toBuffer() };
			} finally {
				picture.free();
			}
		},
		close: () => {
			open?.context.freeContext();
			open = undefined;
		},
	};
};
