/**
 * What an image-to-video network (Wan 2.2) reads besides the noisy latent: a mask that says which latent frames are given, and the
 * latents of a clip that begins with the picture and goes on in grey. The order is latent, mask, picture.
 */
import { TurbocastError } from '../protocol/errors.js';

/** One mask channel for each video frame of a latent frame. */
const MASK_CHANNELS = 4;

/**
 * `image` [Ci, F, h, w], normalised, to [4 + Ci, F, h, w]; a latent frame has `framePixels` = h * w numbers. Throws `internal` when the sizes do not fit.
 */
export const imageCondition = (image: Float32Array, frames: number, framePixels: number): Float32Array => {
	const plane = frames * framePixels;
	if (image.length % plane !== 0) {
		throw new TurbocastError('internal', `${image.length} numbers are no whole channels of ${frames} latent frames of ${framePixels}.`);
	}
	const condition = new Float32Array(MASK_CHANNELS * plane + image.length);
	for (let channel = 0; channel < MASK_CHANNELS; channel++) {
		// Only the first latent frame is given.
		condition.fill(1, channel * plane, channel * plane + framePixels);
	}
	condition.set(image, MASK_CHANNELS * plane);
	return condition;
};
