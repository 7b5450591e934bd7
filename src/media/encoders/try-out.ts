/** The test that a library has to pass on this machine before sessions depend on it. */
import { i420Bytes, VIDEO_CODECS } from '../../base/frame.js';
import { TurbocastError } from '../../protocol/errors.js';
import type { EncoderLibrary } from './frame-encoder.js';

const SIDE = 64;
const FRAMES = 4;
const KEYFRAME_AT = 2;

/**
 * Encodes, forces a key frame and changes the rate once: a library that loads may still lack an encoder on some platform.
 * Throws `encoder_failed`.
 */
export const tryOut = async (library: EncoderLibrary): Promise<void> => {
	for (const codec of VIDEO_CODECS) {
		const encoder = await library.open({ codec, width: SIDE, height: SIDE, fps: 16, bitrateBps: 200_000 });
		try {
			const keys: boolean[] = [];
			for (let index = 0; index < FRAMES; index += 1) {
				const data = new Uint8Array(i420Bytes(SIDE, SIDE)).fill(64 + 20 * index);
				const { isKeyframe } = await encoder.encode(data, { keyframe: index === KEYFRAME_AT, bitrateBps: 200_000 });
				keys.push(isKeyframe);
			}
			if (keys.some((isKeyframe, index) => isKeyframe !== (index === 0 || index === KEYFRAME_AT))) {
				throw new TurbocastError('encoder_failed', `The ${codec} encoder does not place key frames where it is told to.`);
			}
			await encoder.encode(new Uint8Array(i420Bytes(SIDE, SIDE)), { keyframe: false, bitrateBps: 300_000 });
		} finally {
			await encoder.close();
		}
	}
};
