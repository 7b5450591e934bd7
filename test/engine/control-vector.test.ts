import assert from 'node:assert/strict';
import { test } from 'node:test';
import { controlVector } from '../../src/engine/control-vector.js';
import type { ModelSpec } from '../../src/model/spec.js';
import { TurbocastError } from '../../src/protocol/errors.js';

// Only the fields that a control vector is made of.
const SPEC = {
	name: 'test', dit: { control_dim: 4 }, stream: { latents_per_chunk: 2 }, control_present_index: 3,
	controls: [
		{ name: 'steer_x', index: 0, min: -1, max: 1, default: 0, label: '' },
		{ name: 'zoom', index: 2, min: 0.5, max: 2, default: 1, label: '' },
	],
} as unknown as ModelSpec;

const WITHOUT_MARK = { ...SPEC, control_present_index: undefined } as unknown as ModelSpec;

test('given values, defaults for the others, and the mark that there are any, for each latent frame', () => {
	assert.deepEqual([...controlVector(SPEC, { steer_x: -0.5 })], [-0.5, 0, 1, 1, -0.5, 0, 1, 1]);
});

test('no control given: all zeros, as the model was trained', () => {
	assert.deepEqual([...controlVector(SPEC, {})], [0, 0, 0, 0, 0, 0, 0, 0]);
});

test('a model without a mark gets the defaults', () => {
	assert.deepEqual([...controlVector(WITHOUT_MARK, {})], [0, 0, 1, 0, 0, 0, 1, 0]);
});

test('a model without controls gets an empty vector', () => {
	assert.equal(controlVector({ ...WITHOUT_MARK, controls: [], dit: { ...SPEC.dit, control_dim: 0 } }, {}).length, 0);
});

for (const [title, values] of [
	['unknown', { jump: 1 }],
	['inherited', JSON.parse('{"__proto__": 1, "toString": 1}') as { [name: string]: number }],
	['too large', { steer_x: 1.01 }],
	['not a number', { steer_x: Number.NaN }],
	['infinite', { zoom: Infinity }],
] as const) {
	test(`a control that is ${title} is refused by name`, () => {
		assert.throws(() => controlVector(SPEC, values), (error) => error instanceof TurbocastError && error.code === 'invalid_request'
			&& Object.keys(values).some((name) => error.param === `controls.${name}` && error.message.includes(name)));
	});
}
