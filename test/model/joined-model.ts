/**
 * Joined models of the real architectures with small random weights, made the way a user makes them: checkpoints under published names are
 * imported, then joined. The arithmetic is real, the pictures are noise.
 */
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { importCheckpoint } from '../../src/cli/import.js';
import { joinModel, type JoinRequest } from '../../src/cli/join.js';
import { taehvTensors, textTensors, wanVaeTensors, type Shapes } from '../../src/model/checkpoint/network-tensors.js';
import { ditTensors } from '../../src/model/dit-tensors.js';
import { openModelFolder } from '../../src/model/model-folder.js';
import { encodeSafetensors, type TensorToWrite } from '../../src/model/safetensors.js';
import type { DitDimensions, ModelSpec } from '../../src/model/spec.js';
import { parseTaehvSpec } from '../../src/model/taehv.js';
import { parseWanVaeSpec } from '../../src/model/wan-vae-spec.js';
import { repositoryRoot } from '../repository.js';
import { dict, integer, writeStateDict } from './checkpoint/torch-writer.js';
import { randomTensors } from './random-weights.js';

const TEXT_LENGTH = 12;
const GOLDEN = join(repositoryRoot, 'test/fixtures/golden');
/** Of its text_dim and text_len. */
const [GOLDEN_TEXT_DIM, GOLDEN_TEXT_LENGTH] = [48, 16];
const WORDS = ['<pad>', '</s>', '<unk>', 'a', 'the', 'cat', 'dog', 'rocket', 'jumps', 'flies', 'on', 'over', 'beach', 'snow', 'at', 'night'];

export const JOINED_DIT: DitDimensions = {
	dim: 128, ffn_dim: 160, num_heads: 2, num_layers: 2, in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 24, text_len: TEXT_LENGTH,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};
const TEXT = { vocab_size: WORDS.length, dim: 24, dim_attn: 32, dim_ffn: 40, num_heads: 4, num_layers: 2, num_buckets: 32 };
export const JOINED_VAE = parseWanVaeSpec({ dim: 4, z_dim: 16, dim_mult: [1, 2, 4, 4], num_res_blocks: 2, temperal_downsample: [false, true, true] });
export const JOINED_TAEHV = parseTaehvSpec({ widths: [16, 12, 8, 8], latent_channels: 16 });

/** `golden`: TurboDiffusion's network and TAEHV with the weights of the golden folders, which `verify` holds to the original implementations. */
export type JoinedKind = 'turbodiffusion' | 'golden' | 'self-forcing' | 'image-to-video';

export type JoinedModelOptions = {
	readonly kind: JoinedKind;
	readonly decoder?: 'vae' | 'taehv';
	/** Fields of model.json to replace, section by section. */
	readonly changes?: { readonly [section: string]: unknown };
	readonly request?: Partial<JoinRequest>;
};

/** A folder of models, with the imported networks and the model joined from them. */
export type JoinedModel = Disposable & { readonly root: string; readonly path: string; readonly name: string; readonly spec: ModelSpec };

const bfloat16 = (tensors: { readonly [name: string]: TensorToWrite & { readonly data: Float32Array } }): { readonly [name: string]: TensorToWrite } =>
	Object.fromEntries(Object.entries(tensors).map(([name, { shape, data }]) =>
		[name, { dtype: 'BF16' as const, shape, data: Uint16Array.from(new Uint32Array(data.buffer, data.byteOffset, data.length), (bits) => bits >>> 16) }]));

/** Bias of the last layer in the middle of the range, so that pictures are neither black nor white. */
const named = (shapes: Shapes, seed: number): { readonly [name: string]: TensorToWrite } => {
	const tensors = randomTensors(shapes, seed);
	for (const [name, { data }] of Object.entries(tensors)) {
		if (/^decoder\.(?:22|head\.2)\.bias$/u.test(name)) {
			data.fill(name.includes('head') ? 0 : 0.5);
		}
	}
	return bfloat16(tensors);
};

export const edit = (path: string, change: (json: Record<string, unknown>) => void): void => {
	const json = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
	change(json);
	writeFileSync(path, JSON.stringify(json));
};

const bring = (from: string, root: string, name: string): Promise<unknown> =>
	importCheckpoint({ from, to: join(root, name), name, headDim: 64, signal: new AbortController().signal, say: () => undefined });

/** The weights do not tell how long a text may be; Wan's 512 would be slow here. */
const shortenText = (folder: string, length: number): void => edit(join(folder, 'component.json'), (json) => {
	for (const part of json['components'] as { component: string; dimensions: Record<string, unknown> }[]) {
		if (part.component === 'dit') {
			part.dimensions['text_len'] = length;
		}
	}
});

const writeTokenizer = (folder: string): void => {
	const bytes = Buffer.from(JSON.stringify({ kind: 'words', lowercase: true, pad: 0, end: 1, unknown: 2, words: WORDS, aliases: {} }));
	writeFileSync(join(folder, 'tokenizer.json'), bytes);
	edit(join(folder, 'component.json'), (json) => {
		json['tokenizer'] = { file: 'tokenizer.json', bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
	});
};

const importDenoiser = async (kind: JoinedKind, downloads: string, root: string): Promise<void> => {
	switch (kind) {
		case 'turbodiffusion':
			await writeStateDict(join(downloads, 'TurboWan.pth'), named(ditTensors(JOINED_DIT, true), 1));
			return void await bring(join(downloads, 'TurboWan.pth'), root, 'denoiser');
		case 'golden':
			return void await bring(join(GOLDEN, 'turbo-dit', 'weights.safetensors'), root, 'denoiser');
		case 'self-forcing': {
			const tensors = Object.fromEntries(Object.entries(named(ditTensors(JOINED_DIT, false), 2)).map(([name, tensor]) => [`model.${name}`, tensor]));
			await writeStateDict(join(downloads, 'self_forcing.pt'), tensors, (inner) => dict({ generator: dict({}), generator_ema: inner, step: integer(1) }));
			return void await bring(join(downloads, 'self_forcing.pt'), root, 'denoiser');
		}
		case 'image-to-video': {
			const folder = join(downloads, 'experts');
			mkdirSync(folder);
			for (const [seed, expert] of ['high', 'low'].entries()) {
				writeFileSync(join(folder, `TurboWan2.2-I2V-A14B-${expert}-720P.safetensors`), encodeSafetensors(named(ditTensors({ ...JOINED_DIT, in_dim: 36 }, true), 3 + seed)));
			}
			return void await bring(folder, root, 'denoiser');
		}
	}
};

/** Imports and joins below the system's temporary directory; `using` removes it. The same options give the same bytes. */
export const writeJoinedModel = async ({ kind, decoder = 'vae', changes = {}, request = {} }: JoinedModelOptions): Promise<JoinedModel> => {
	const top = mkdtempSync(join(tmpdir(), 'turbocast-joined-'));
	const [downloads, root] = [join(top, 'downloads'), join(top, 'models')];
	for (const folder of [downloads, root, join(downloads, 'parts')]) {
		mkdirSync(folder);
	}
	await importDenoiser(kind, downloads, root);
	const parts = {
		'models_t5_umt5-xxl-enc-bf16': textTensors(kind === 'golden' ? { ...TEXT, dim: GOLDEN_TEXT_DIM } : TEXT), 'Wan2.1_VAE': wanVaeTensors(JOINED_VAE),
		...(kind === 'golden' ? {} : { taew2_1: taehvTensors(JOINED_TAEHV) }),
	};
	if (kind === 'golden') {
		copyFileSync(join(GOLDEN, 'taehv', 'weights.safetensors'), join(downloads, 'parts', 'taew2_1.safetensors'));
	}
	for (const [index, [name, shapes]] of Object.entries(parts).entries()) {
		writeFileSync(join(downloads, 'parts', `${name}.safetensors`), encodeSafetensors(named(shapes, 10 + index)));
	}
	await bring(join(downloads, 'parts'), root, 'parts');
	shortenText(join(root, 'denoiser'), kind === 'golden' ? GOLDEN_TEXT_LENGTH : TEXT_LENGTH);
	writeTokenizer(join(root, 'parts'));
	const name = `small-${kind}`;
	const path = join(root, name);
	await joinModel({ folders: ['denoiser', 'parts'].map((each) => ({ name: each, path: join(root, each) })), to: path, decoder, ...request });
	edit(join(path, 'model.json'), (json) => {
		Object.assign(json, { width: 32, height: 32, sizes: [[32, 32]] });
		for (const [section, change] of Object.entries(changes)) {
			json[section] = typeof change === 'object' && !Array.isArray(change) ? { ...(json[section] as object), ...change } : change;
		}
	});
	const { spec } = await openModelFolder(path);
	return { root, path, name, spec, [Symbol.dispose]: () => rmSync(top, { recursive: true, force: true }) };
};
