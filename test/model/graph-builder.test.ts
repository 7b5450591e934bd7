/** Mistakes are found while a graph is built, with the name of the node. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GraphBuilder } from '../../src/model/graph-builder.js';
import * as op from '../../src/model/operators.js';
import { TurbocastError } from '../../src/protocol/errors.js';

const inGraph = (build: (g: GraphBuilder) => unknown, pattern: RegExp): void => {
	assert.throws(() => build(new GraphBuilder('g')), (error: unknown) => {
		assert.ok(error instanceof TurbocastError && error.code === 'model_invalid', String(error));
		assert.match(error.message, pattern);
		return true;
	});
};

const input = (g: GraphBuilder, ...dims: (number | string)[]) => g.input(`x${dims.join('_')}`, 'float32', dims);

const WRONG: { readonly [what: string]: readonly [(g: GraphBuilder) => unknown, RegExp] } = {
	'matMul of inner sizes that differ': [(g) => op.matMul(g.at('blk0').at('attn'), 'qk', input(g, 2, 3), input(g, 4, 5)), /node blk0\/attn\/qk: \[2, 3\] and \[4, 5\] cannot be multiplied/u],
	'shapes that do not broadcast': [(g) => op.add(g, 'sum', input(g, 2, 3), input(g, 2, 4)), /node sum/u],
	'two symbols that may differ': [(g) => op.add(g, 'sum', input(g, 'a', 3), input(g, 'b', 3)), /node sum/u],
	'types that differ': [(g) => op.add(g, 'sum', input(g, 1), g.integers('n', [1])), /different types: float32, int64/u],
	'a reshape that loses elements': [(g) => op.reshape(g, 'flat', input(g, 2, 3), [5]), /node flat: \[2, 3\] cannot become \[5\]/u],
	'a reshape of a symbol': [(g) => op.reshape(g, 'flat', input(g, 'past', 3), [6]), /node flat/u],
	'a transpose that names an axis twice': [(g) => op.transpose(g, 't', input(g, 2, 3), [0, 0]), /node t/u],
	'a join of other shapes': [(g) => op.concat(g, 'j', [input(g, 2, 3), input(g, 2, 4)], 0), /node j/u],
	'a split that does not add up': [(g) => op.split(g, 's', input(g, 2, 6), 1, [2, 3]), /node s/u],
	'a slice beyond the end': [(g) => op.slice(g, 'cut', input(g, 4), 0, 2, 5), /node cut/u],
	'a linear layer with another bias': [(g) => op.linear(g, 'l', input(g, 2, 3), g.floats('w', [4, 3], new Float32Array(12)), g.floats('b', [3], [0, 0, 0])), /node l/u],
	'a norm over another width': [(g) => op.rmsNorm(g, 'n', input(g, 2, 3), g.floats('w', [4], [1, 1, 1, 1]), 1e-6), /node n/u],
	'a convolution of other channels': [(g) => op.convolution(g, 'c', input(g, 1, 3, 4, 4), g.floats('w', [2, 4, 1, 1], new Float32Array(8)), g.floats('b', [2], [0, 0])), /node c/u],
	'a pixel shuffle of channels that 4 does not divide': [(g) => op.pixelShuffle(g, 'p', input(g, 1, 6, 2, 2)), /node p/u],
	'a rotation with tables of another length': [(g) => op.rotary(g, 'r', input(g, 1, 4, 8), input(g, 1, 3, 2), g.input('sin', 'float32', [1, 3, 2]), 2), /node r/u],
	'a constant of another size': [(g) => g.floats('k', [3], [1, 2]), /node k: 8 bytes do not make float32 \[3\]/u],
	'a name that is taken': [(g) => [input(g, 2), input(g, 2)], /taken/u],
	'bfloat16 that would leave the graph': [(g) => g.output('y', op.cast(g, 'c', input(g, 2), 'bfloat16')), /cast it first/u],
};

for (const [what, [build, pattern]] of Object.entries(WRONG)) {
	test(`${what} is refused by name`, () => inGraph(build, pattern));
}

test('shapes are worked out, symbols too', () => {
	const g = new GraphBuilder('g');
	const past = g.input('past_k', 'float32', [2, 'past', 8]);
	const keys = op.concat(g, 'keys', [past, g.input('new_k', 'float32', [2, 3, 8])], 1);
	assert.deepEqual(keys.dims, [2, 'past+3', 8]);
	assert.deepEqual(op.matMul(g, 'qk', g.input('q', 'float32', [2, 3, 8]), op.transpose(g, 'kt', keys, [0, 2, 1])).dims, [2, 3, 'past+3']);
});

test('large constants go into one block of bytes, aligned, and small ones stay in the graph', () => {
	const g = new GraphBuilder('g');
	const x = g.input('x', 'float32', [100]);
	const a = op.add(g, 'a', x, g.floats('first', [100], new Float32Array(100).fill(1)));
	g.output('y', op.multiply(g, 'b', op.add(g, 'c', a, g.floats('second', [100], new Float32Array(100).fill(2))), g.float('small', 3)));
	const { external } = g.finish();
	assert.equal(external.length, 1);
	const [derived] = external;
	assert.ok(derived !== undefined && 'data' in derived);
	assert.equal(derived.location, 'g.derived');
	assert.deepEqual([derived.data[3], new Float32Array(derived.data.buffer)[448 / 4]], [0x3f, 2]);
});
