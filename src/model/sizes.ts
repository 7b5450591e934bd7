/** Which output sizes a model makes, and what to say of the others. */
import { TurbocastError } from '../protocol/errors.js';
import type { ModelSpec } from './spec.js';

type Sized = Pick<ModelSpec, 'name' | 'sizes' | 'size_multiple'>;

const nearest = (side: number, multiple: number): number => Math.max(multiple, Math.round(side / multiple) * multiple);

/** Holds a size in pixels against the model. Throws `invalid_request` that says which sizes there are, or the nearest one. */
export const checkSize = ({ name, sizes, size_multiple: multiple }: Sized, width: number, height: number): void => {
	if (sizes.some(([w, h]) => w === width && h === height)) {
		return;
	}
	const known = sizes.map((pair) => pair.join('x')).join(', ');
	if (multiple === undefined) {
		throw new TurbocastError('invalid_request', `The size must be one of ${known} for the model ${name}, not ${width}x${height}.`, { param: 'size' });
	}
	const fits = [width, height].every((side) => Number.isInteger(side) && side >= multiple && side % multiple === 0);
	if (!fits) {
		throw new TurbocastError('invalid_request',
			`The model ${name} makes sides that are multiples of ${multiple}, not ${width}x${height}; the nearest size is ${nearest(width, multiple)}x${nearest(height, multiple)}. It was made for ${known}.`, { param: 'size' });
	}
};
