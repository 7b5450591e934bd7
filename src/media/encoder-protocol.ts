/** What crosses the border between the main process and the encoder process. Structured-clone safe. */
import { TurbocastError } from '../protocol/errors.js';
import { ENCODER_IMPLEMENTATIONS, type EncoderImplementation } from './encoders/frame-encoder.js';
import type { EncoderOptions } from './encoder.js';
import type { EncoderReport } from './encoder-self-test.js';

export const ENCODER_CHOICES = ['auto', ...ENCODER_IMPLEMENTATIONS] as const;
/** `auto`: see `encoder-choice.ts`. */
export type EncoderChoice = (typeof ENCODER_CHOICES)[number];

export type EncoderRequest =
	/** Encoders are numbered by the host and never reused. */
	| { readonly type: 'open'; readonly encoder: number; readonly options: EncoderOptions }
	/** Answered in order. Everything that may change travels with the frame, so it takes effect at exactly that frame. */
	| { readonly type: 'encode'; readonly encoder: number; readonly sequence: number; readonly data: Uint8Array; readonly keyframe: boolean; readonly bitrateBps: number }
	| { readonly type: 'close'; readonly encoder: number };

export type EncoderEvent =
	| { readonly type: 'ready'; readonly implementation: EncoderImplementation; readonly reports: readonly EncoderReport[] }
	| { readonly type: 'unusable'; readonly message: string }
	| { readonly type: 'opened'; readonly encoder: number }
	| { readonly type: 'encoded'; readonly encoder: number; readonly sequence: number; readonly data: Uint8Array; readonly isKeyframe: boolean; readonly encodeMs: number }
	/** `sequence` is absent when it was the opening that failed. */
	| { readonly type: 'failed'; readonly encoder: number; readonly sequence?: number; readonly message: string }
	| { readonly type: 'closed'; readonly encoder: number };

/** Pixels of either side: the most that H.264 level 5.2 decoders take, with room. */
const MOST_PIXELS = 4096;
const BITRATES_BPS = { least: 20_000, most: 100_000_000 };

/** Throws `encoder_failed`, in words, before a library would say it in numbers. */
export const checkEncoderOptions = ({ width, height, fps, bitrateBps }: EncoderOptions): void => {
	for (const [name, pixels] of [['width', width], ['height', height]] as const) {
		if (!Number.isInteger(pixels) || pixels < 16 || pixels > MOST_PIXELS || pixels % 2 !== 0) {
			throw new TurbocastError('encoder_failed', `The ${name} of a video must be an even number from 16 to ${MOST_PIXELS}, not ${pixels}; choose another size.`);
		}
	}
	if (!(fps >= 1 && fps <= 240)) {
		throw new TurbocastError('encoder_failed', `The frame rate of a video must be from 1 to 240, not ${fps}.`);
	}
	if (!(bitrateBps >= BITRATES_BPS.least && bitrateBps <= BITRATES_BPS.most)) {
		throw new TurbocastError('encoder_failed', `The bitrate must be from ${BITRATES_BPS.least} to ${BITRATES_BPS.most} bits a second, not ${bitrateBps}.`);
	}
};
