/** One network out of a checkpoint: what it is, its dimensions, and every tensor under its original name and shape. */
import { TurbocastError } from '../../protocol/errors.js';
import type { Dtype } from '../safetensors.js';
import { ditDimensions, type ShapesByName, taehvDimensions, textDimensions, wanVaeDimensions } from './dimensions.js';
import { ditTensors } from '../dit-tensors.js';
import { quantizedTensors, type Shapes, taehvTensors, textTensors, wanVaeTensors } from './network-tensors.js';
import { countOf, type StoredTensorInfo, type TensorStore } from './tensor-store.js';
import { type Component, recogniseNames } from './tensor-names.js';

export type ComponentTensor = { readonly name: string; readonly dtype: Dtype; readonly shape: readonly number[]; readonly stored: StoredTensorInfo };

export type RecognisedComponent = {
	readonly component: Component;
	/** `wan-dit`, `turbo-dit`, `umt5`, `wan-vae` or `taehv`. */
	readonly kind: string;
	readonly title: string;
	readonly dimensions: { readonly [name: string]: unknown };
	/** In the order in which the network uses them. */
	readonly tensors: readonly ComponentTensor[];
	/** How many tensors of the file are of no use here and were left out. */
	readonly leftOut: number;
};

/** Names listed in a message; a file for another network would have hundreds. */
const MAX_LISTED = 2000;

const listed = (title: string, names: readonly string[]): string =>
	names.length === 0 ? '' : `\n${title} (${names.length}):\n${names.slice(0, MAX_LISTED).map((name) => `  ${name}`).join('\n')}${names.length > MAX_LISTED ? '\n  ...' : ''}`;

const sameShape = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((size, axis) => size === b[axis]);

/** A matrix may stand for the convolution that it is (TurboDiffusion's patch embedding), a row for a [1, ...] of it; nothing else may be regrouped. */
const mayStandFor = (name: string, found: readonly number[], expected: readonly number[]): boolean =>
	sameShape(found, expected) || (name === 'patch_embedding.weight' && found.length === 2 && found[0] === expected[0] && countOf(found) === countOf(expected));

const WEIGHT_TYPES: readonly Dtype[] = ['F32', 'BF16', 'F16'];

const typeProblem = (name: string, dtype: Dtype): string | undefined => {
	if (name.endsWith('.int8_weight')) {
		return dtype === 'I8' ? undefined : `${name} is ${dtype}, but I8 is expected`;
	}
	return WEIGHT_TYPES.includes(dtype) ? undefined : `${name} is ${dtype}; weights must be F32, BF16 or F16`;
};

type Facts = { readonly kind: string; readonly title: string; readonly dimensions: { readonly [name: string]: unknown }; readonly expected: Shapes };

const factsOf = (component: Component, shapes: ShapesByName, headDim: number | undefined): Facts => {
	switch (component) {
		case 'dit': {
			const { dimensions, isSparse, isQuantized } = ditDimensions(shapes, headDim);
			const expected = ditTensors(dimensions, isSparse);
			return {
				kind: isSparse ? 'turbo-dit' : 'wan-dit', dimensions: { ...dimensions, attention: isSparse ? 'sla' : 'dense', linears: isQuantized ? 'w8a8' : 'float' },
				title: `${isSparse ? ', sparse-linear attention' : ''}${isQuantized ? ', 8-bit linear layers' : ''}`,
				expected: isQuantized ? quantizedTensors(expected) : expected,
			};
		}
		case 'text': {
			const dimensions = textDimensions(shapes);
			return { kind: 'umt5', title: '', dimensions, expected: textTensors(dimensions) };
		}
		case 'vae': {
			const dimensions = wanVaeDimensions(shapes);
			return { kind: 'wan-vae', title: '', dimensions, expected: wanVaeTensors(dimensions) };
		}
		case 'taehv': {
			const dimensions = taehvDimensions(shapes);
			return { kind: 'taehv', title: '', dimensions, expected: taehvTensors(dimensions) };
		}
	}
};

/**
 * Recognises the network in a checkpoint and holds every tensor against what its dimensions ask for. Throws `model_invalid` listing all
 * tensors that are missing, unknown or of a wrong shape or type.
 */
export const recogniseComponent = (store: TensorStore, options: { readonly headDim?: number | undefined } = {}): RecognisedComponent => {
	const { label, tensors } = store;
	const named = recogniseNames([...tensors.keys()]);
	if (named === undefined) {
		throw new TurbocastError('model_invalid', `${label} holds none of the networks that can be imported (Wan DiT, umT5 encoder, Wan VAE, TAEHV).${listed('Its tensors', [...tensors.keys()].slice(0, 20))}`);
	}
	const found = new Map<string, StoredTensorInfo>();
	const twice: string[] = [];
	for (const [fileName, name] of named.names) {
		const tensor = tensors.get(fileName);
		if (found.has(name)) {
			twice.push(`${fileName} (as ${name})`);
		} else if (tensor !== undefined) {
			found.set(name, tensor);
		}
	}
	const { kind, title, dimensions, expected } = factsOf(named.component, new Map([...found].map(([name, { shape }]) => [name, shape])), options.headDim);
	const wanted = Object.entries(expected);
	const missing = wanted.filter(([name]) => !found.has(name)).map(([name, shape]) => `${name} [${shape.join(', ')}]`);
	const unknown = [...named.names].filter(([, name]) => !Object.hasOwn(expected, name)).map(([fileName]) => fileName);
	const wrong = wanted.flatMap(([name, shape]) => {
		const tensor = found.get(name);
		const reshaped = tensor === undefined || mayStandFor(name, tensor.shape, shape) ? undefined : `${name} is [${tensor.shape.join(', ')}], but [${shape.join(', ')}] is expected`;
		return [reshaped, tensor === undefined ? undefined : typeProblem(name, tensor.dtype)].filter((problem) => problem !== undefined);
	});
	if (missing.length + unknown.length + wrong.length + twice.length > 0) {
		throw new TurbocastError('model_invalid', `${label} looks like ${named.title}${title}, but does not hold exactly its tensors.${listed('Missing', missing)}${listed('Unknown', unknown)}${listed('Twice', twice)}${listed('Wrong', wrong)}`);
	}
	return {
		component: named.component, kind, title: `${named.title}${title}`, dimensions, leftOut: named.ignored.length,
		tensors: wanted.flatMap(([name, shape]) => {
			const stored = found.get(name);
			return stored === undefined ? [] : [{ name, dtype: stored.dtype, shape, stored }];
		}),
	};
};
