/** Every encoder by its name, and why one need not even be tried. */
import { existsSync, readdirSync } from 'node:fs';
import { assertNever } from '../../protocol/assert-never.js';
import { TurbocastError } from '../../protocol/errors.js';
import { loadFfmpeg } from './ffmpeg.js';
import type { EncoderImplementation, EncoderLibrary, FrameEncoder, HardwareEncoder } from './frame-encoder.js';
import { loadNodeAv } from './node-av.js';

const DRI = '/dev/dri';

/** The first card with a driver that may render and encode without a screen. */
const renderNode = (): string | undefined => {
	try {
		const name = readdirSync(DRI).filter((entry) => entry.startsWith('renderD')).sort()[0];
		return name === undefined ? undefined : `${DRI}/${name}`;
	} catch {
		return undefined;
	}
};

/** As a clause; `undefined` where its hardware may be there. */
export const whyNoHardware = (implementation: HardwareEncoder): string | undefined => {
	switch (implementation) {
		case 'nvenc':
			// On Windows the driver shows no file.
			return process.platform === 'win32' || existsSync('/dev/nvidiactl') ? undefined : 'no NVIDIA card is here';
		case 'vaapi':
			return renderNode() === undefined ? `no card is here (${DRI}/renderD*)` : undefined;
		case 'videotoolbox':
			return process.platform === 'darwin' ? undefined : 'it belongs to macOS';
		default:
			return assertNever(implementation);
	}
};

/** Rejects with `encoder_failed` where its library is missing; whether it encodes, `tryOut` finds. */
export const loadEncoder = (implementation: EncoderImplementation, ffmpegPath: string): Promise<EncoderLibrary> => {
	switch (implementation) {
		case 'node-av': case 'nvenc': case 'videotoolbox':
			return loadNodeAv(implementation);
		case 'ffmpeg':
			return loadFfmpeg(ffmpegPath);
		case 'vaapi': {
			const device = renderNode();
			return device === undefined ? Promise.reject(new TurbocastError('encoder_failed', `VAAPI needs a graphics card: ${DRI} has none.`)) : loadFfmpeg(ffmpegPath, device);
		}
		default:
			return assertNever(implementation);
	}
};

/**
 * An encoder in hardware, and one in software for what it does not take (NVENC, for one, refuses small pictures) and for when it fails in mid-stream:
 * that begins with a key frame, like every encoder.
 */
export const withFallback = (hardware: EncoderLibrary, software: EncoderLibrary): EncoderLibrary => ({
	decode: software.decode,
	open: async (options) => {
		let isSoftware = false;
		const openSoftware = (): Promise<FrameEncoder> => {
			isSoftware = true;
			return software.open(options);
		};
		let encoder = await hardware.open(options).catch(openSoftware);
		return {
			encode: (data, wanted) => encoder.encode(data, wanted).catch(async (error: unknown) => {
				if (isSoftware) {
					throw error;
				}
				await encoder.close();
				encoder = await openSoftware();
				return encoder.encode(data, wanted);
			}),
			close: () => encoder.close(),
		};
	},
});
