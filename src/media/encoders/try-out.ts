/** The test that an encoder has to pass on this machine before sessions depend on it. */
import { VIDEO_CODECS, type VideoCodec } from '../../base/frame.js';
import { TurbocastError } from '../../protocol/errors.js';
import { psnrDb } from '../psnr.js';
import type { EncoderLibrary } from './frame-encoder.js';
import { testPicture } from './test-picture.js';

/** What a working encoder did. */
export type TryOut = {
	/** Median of an H.264 frame, ms. */
	readonly frameMs: number;
	/** Of the worst picture, decoded again, against what was encoded. */
	readonly psnrDb: number;
};

export type PictureSize = { readonly width: number; readonly height: number };

/** Enough to see that it works. */
export const SMALL: PictureSize = { width: 128, height: 96 };
const FRAMES = 12;
const KEYFRAME_AT = 5;
const NEW_RATE_AT = 8;
const FPS = 16;
/** Bits of a pixel before and after the change. */
const BITS_PER_PIXEL = [3, 2] as const;
/** x264 and libvpx reach 35 dB and more; a picture with wrong planes or wrong references stays below 20. */
const LEAST_PSNR_DB = 28;

const fail = (codec: VideoCodec, what: string): never => {
	throw new TurbocastError('encoder_failed', `The ${codec} encoder ${what}.`);
};

const tryCodec = async (library: EncoderLibrary, codec: VideoCodec, { width, height }: PictureSize): Promise<TryOut> => {
	const rates = BITS_PER_PIXEL.map((bits) => Math.round(bits * width * height * FPS / 4));
	const encoder = await library.open({ codec, width, height, fps: FPS, bitrateBps: rates[0] ?? 0 });
	const pictures = Array.from({ length: FRAMES }, (_, index) => testPicture(index, width, height));
	const units: Uint8Array[] = [];
	const tookMs: number[] = [];
	try {
		for (const [index, picture] of pictures.entries()) {
			const startedMs = performance.now();
			const { data, isKeyframe } = await encoder.encode(picture, { keyframe: index === KEYFRAME_AT, bitrateBps: rates[index < NEW_RATE_AT ? 0 : 1] ?? 0 });
			tookMs.push(performance.now() - startedMs);
			units.push(data);
			// Some need a key frame for another rate; every other one is asked for.
			if (index !== NEW_RATE_AT && isKeyframe !== (index === 0 || index === KEYFRAME_AT)) {
				fail(codec, 'does not place key frames where it is told to');
			}
		}
	} finally {
		await encoder.close();
	}
	// From the key frame on, as somebody who joins there: it must stand alone.
	const decoded = await library.decode(codec, { width, height }, units.slice(KEYFRAME_AT));
	if (decoded.length !== FRAMES - KEYFRAME_AT) {
		fail(codec, `makes a stream of which ${decoded.length} of ${FRAMES - KEYFRAME_AT} pictures can be decoded`);
	}
	const psnr = Math.min(...decoded.map((picture, index) => psnrDb(picture, pictures[KEYFRAME_AT + index] ?? picture)));
	if (!(psnr >= LEAST_PSNR_DB)) {
		fail(codec, `makes pictures of ${psnr.toFixed(1)} dB where ${LEAST_PSNR_DB} are the least`);
	}
	return { frameMs: [...tookMs].sort((a, b) => a - b)[FRAMES >> 1] ?? Number.NaN, psnrDb: psnr };
};

/**
 * Encodes, forces a key frame, changes the rate and decodes again, in each codec: a library that loads may still lack an encoder on some
 * platform, and a driver may accept what it then does wrong. Throws `encoder_failed`.
 */
export const tryOut = async (library: EncoderLibrary, size: PictureSize = SMALL): Promise<TryOut> => {
	const results: TryOut[] = [];
	for (const codec of VIDEO_CODECS) {
		results.push(await tryCodec(library, codec, size));
	}
	return { frameMs: results[0]?.frameMs ?? Number.NaN, psnrDb: Math.min(...results.map(({ psnrDb: psnr }) => psnr)) };
};
