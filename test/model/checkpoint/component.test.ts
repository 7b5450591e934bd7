/** What a checkpoint is, from the names and shapes of its tensors. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { recogniseComponent } from '../../../src/model/checkpoint/component.js';
import { type Shapes, taehvTensors, wanVaeTensors } from '../../../src/model/checkpoint/network-tensors.js';
import type { StoredTensorInfo, TensorStore } from '../../../src/model/checkpoint/tensor-store.js';
import { parseTaehvSpec } from '../../../src/model/taehv.js';
import { parseWanVaeSpec, WAN_LATENT_STD } from '../../../src/model/wan-vae-spec.js';
import type { Dtype } from '../../../src/model/safetensors.js';
import { TurbocastError } from '../../../src/protocol/errors.js';
import { DIT, PUBLISHED, TEXT, VAE } from './published-names.js';

const typeOf = (name: string): Dtype => (name.endsWith('.int8_weight') ? 'I8' : 'BF16');

const storeOf = (shapes: Shapes, types: { readonly [name: string]: Dtype } = {}): TensorStore => ({
	label: 'file.pth', close: () => Promise.resolve(),
	tensors: new Map(Object.entries(shapes).map(([name, shape]): [string, StoredTensorInfo] => [name, { dtype: types[name] ?? typeOf(name), shape, read: () => { throw new Error('nothing is to be read'); } }])),
});

const renamed = (shapes: Shapes, rename: (name: string) => string): Shapes => Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [rename(name), shape]));

const refusal = (store: TensorStore, ...patterns: readonly RegExp[]): void => {
	assert.throws(() => recogniseComponent(store), (error: unknown) => {
		assert.ok(error instanceof TurbocastError && error.code === 'model_invalid', String(error));
		for (const pattern of patterns) {
			assert.match(error.message, pattern);
		}
		return true;
	});
};

for (const { what, kind, title, shapes, rename } of PUBLISHED) {
	test(`${what} is recognised and every tensor gets its original name`, () => {
		const network = recogniseComponent(storeOf(renamed(shapes, rename)));
		assert.equal(network.kind, kind);
		assert.match(network.title, title);
		assert.deepEqual(Object.fromEntries(network.tensors.map((tensor) => [tensor.name, tensor.shape])), shapes);
	});
}

const without = (shapes: Shapes, ...names: readonly string[]): Shapes => Object.fromEntries(Object.entries(shapes).filter(([name]) => !names.includes(name)));

const shapesOf = (what: string): Shapes => PUBLISHED.find((published) => published.what === what)?.shapes ?? assert.fail(what);

test('dimensions come from the shapes', () => {
	assert.deepEqual(recogniseComponent(storeOf(shapesOf('Wan 2.1'))).dimensions, { ...DIT, attention: 'dense', linears: 'float' });
	assert.deepEqual(recogniseComponent(storeOf(shapesOf('umT5'))).dimensions, TEXT);
	assert.deepEqual(recogniseComponent(storeOf(shapesOf('the Wan VAE'))).dimensions, VAE);
	const wide = parseWanVaeSpec({ dim: 2, z_dim: 16, dim_mult: [1, 3], num_res_blocks: 1, temperal_downsample: [true] });
	assert.deepEqual(recogniseComponent(storeOf(wanVaeTensors(wide))).dimensions['latent_std'], WAN_LATENT_STD, 'latents of 16 channels are normalised as Wan has it');
});

test('a head that Wan does not have is said by the caller or read off proj_l', () => {
	const wan = storeOf(shapesOf('Wan 2.1'));
	assert.equal(recogniseComponent(wan, { headDim: 32 }).dimensions['num_heads'], 4);
	assert.throws(() => recogniseComponent(wan, { headDim: 48 }), /do not divide into heads of 48/u);
	assert.throws(() => recogniseComponent(storeOf(shapesOf('TurboDiffusion')), { headDim: 64 }), /proj_l is made for heads of 128 channels, not 64/u);
});

test('the matrix of TurboDiffusion\'s patch embedding is the convolution it stands for', () => {
	const network = recogniseComponent(storeOf({ ...shapesOf('TurboDiffusion'), 'patch_embedding.weight': [DIT.dim, DIT.in_dim * 4] }));
	assert.deepEqual(network.tensors.find(({ name }) => name === 'patch_embedding.weight')?.shape, [DIT.dim, DIT.in_dim, 1, 2, 2]);
});

test('TAEHV of any widths is recognised, and its encoder left out', () => {
	for (const config of [{ widths: [8, 6, 5, 4], latent_channels: 4, grow: [1, 2, 2] }, { widths: [6, 5, 4], latent_channels: 3, grow: [2, 3] }]) {
		const spec = parseTaehvSpec(config);
		const network = recogniseComponent(storeOf({ ...taehvTensors(spec), 'encoder.0.weight': [4, 3, 3, 3], 'encoder.0.bias': [4] }));
		assert.deepEqual(network.dimensions, { ...spec });
		assert.equal(network.leftOut, 2);
	}
});

test('a second copy of umT5\'s embedding is left out', () => {
	const { shapes, rename } = PUBLISHED.find(({ what }) => what === 'umT5 by Hugging Face') ?? assert.fail();
	assert.equal(recogniseComponent(storeOf({ ...renamed(shapes, rename), 'encoder.embed_tokens.weight': [TEXT.vocab_size, TEXT.dim] })).leftOut, 1);
	const onlyEncoder = renamed(renamed(shapes, rename), (name) => (name === 'shared.weight' ? 'encoder.embed_tokens.weight' : name));
	assert.equal(recogniseComponent(storeOf(onlyEncoder)).leftOut, 0);
});

test('everything that is missing, unknown, of a wrong shape or of a wrong type is listed at once', () => {
	const rest = without(shapesOf('Wan 2.1'), 'blocks.1.ffn.2.bias', 'blocks.0.norm3.weight');
	refusal(storeOf({ ...rest, 'img_emb.proj.0.weight': [3], 'blocks.0.cross_attn.k_img.weight': [3], 'head.modulation': [1, 3, DIT.dim] }, { 'head.head.bias': 'I64' }),
		/Missing \(2\):\n {2}blocks\.0\.norm3\.weight \[128\]\n {2}blocks\.1\.ffn\.2\.bias \[128\]/u, /Unknown \(2\):\n {2}img_emb\.proj\.0\.weight\n {2}blocks\.0\.cross_attn\.k_img\.weight/u,
		/head\.modulation is \[1, 3, 128\], but \[1, 2, 128\] is expected/u, /head\.head\.bias is I64/u);
});

test('8-bit layers with scales of the wrong shape, or floats in their place, are refused', () => {
	const quantized = shapesOf('TurboDiffusion in 8 bits');
	assert.deepEqual(quantized['blocks.0.ffn.0.scale'], [2, 1]);
	refusal(storeOf({ ...quantized, 'blocks.0.ffn.0.scale': [1, 2] }), /blocks\.0\.ffn\.0\.scale is \[1, 2\], but \[2, 1\] is expected/u);
	refusal(storeOf(quantized, { 'blocks.1.ffn.2.int8_weight': 'F32' }), /blocks\.1\.ffn\.2\.int8_weight is F32, but I8 is expected/u);
});

test('proj_l in one block alone is a mistake, not another model', () => {
	refusal(storeOf(without(shapesOf('TurboDiffusion'), 'blocks.1.self_attn.attn_op.local_attn.proj_l.weight')), /Missing \(1\):\n {2}blocks\.1\.self_attn\.attn_op\.local_attn\.proj_l\.weight/u);
});

test('a checkpoint of something else, a block number without end and a network without its first tensors are refused', () => {
	refusal(storeOf({ 'layers.0.weight': [2, 2] }), /none of the networks.*layers\.0\.weight/su);
	refusal(storeOf({ ...shapesOf('Wan 2.1'), constructor: [1] }), /Unknown \(1\):\n {2}constructor/u);
	refusal(storeOf({ ...shapesOf('Wan 2.1'), 'blocks.999999.modulation': [1] }), /more than 1024 blocks/u);
	refusal(storeOf(without(shapesOf('Wan 2.1'), 'text_embedding.0.weight')), /text_embedding\.0\.weight.*is missing/u);
});
