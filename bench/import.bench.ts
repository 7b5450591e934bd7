/**
 * Time and memory of importing a checkpoint of Wan's dimensions: npm run bench -- import [1.3B|14B] [LAYERS]. The checkpoint is made here: a
 * real zip archive and pickle, whose numbers are holes in a sparse file. What is written is of full size: 28.6 GB for 14B with its 40 layers.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { importCheckpoint } from '../src/cli/import.js';
import { ditTensors } from '../src/model/dit-tensors.js';
import type { DitDimensions } from '../src/model/spec.js';
import { dict, integer, orderedDict, pickle, tensor, text, zipParts } from '../test/model/checkpoint/torch-writer.js';
import { printTable, printWhere } from './report.js';

const SAMPLE_MS = 20;
const SIZES = { '1.3B': { dim: 1536, ffn_dim: 8960, num_heads: 12, num_layers: 30 }, '14B': { dim: 5120, ffn_dim: 13_824, num_heads: 40, num_layers: 40 } } as const;

const [size = '1.3B', layers] = process.argv.slice(2);
if (size !== '1.3B' && size !== '14B') {
	throw new RangeError(`${size} is not one of ${Object.keys(SIZES).join(', ')}`);
}
const spec: DitDimensions = {
	...SIZES[size], num_layers: layers === undefined ? SIZES[size].num_layers : Number(layers), in_dim: 16, out_dim: 16, patch_size: [1, 2, 2], freq_dim: 256, text_dim: 4096, text_len: 512,
	eps: 1e-6, qk_norm: true, cross_attn_norm: true, rope_theta: 10_000, control_dim: 0, pooled_text: false,
};

const folder = await mkdtemp(join(tmpdir(), 'turbocast-import-bench-'));
try {
	const shapes = Object.entries(ditTensors(spec, true));
	const elements = (shape: readonly number[]): number => shape.reduce((product, side) => product * side, 1);
	const root = dict({
		generator_ema: dict(Object.fromEntries(shapes.map(([name, shape], index) =>
			[name, tensor({ storage: 'BFloat16Storage', key: String(index), elements: elements(shape), shape })])), orderedDict), step: integer(1), note: text('bench'),
	});
	const entries = [{ name: 'archive/data.pkl', data: pickle(root) }, ...shapes.map(([, shape], index) => ({ name: `archive/data/${index}`, bytes: 2 * elements(shape) }))];
	const path = join(folder, 'checkpoint.pth');
	const file = await open(path, 'w');
	for (const { offset, bytes } of zipParts(entries)) {
		await file.write(bytes, 0, bytes.length, offset);
	}
	await file.close();

	let peak = 0;
	const sampler = setInterval(() => {
		peak = Math.max(peak, process.memoryUsage().rss);
	}, SAMPLE_MS);
	const started = performance.now();
	const { components } = await importCheckpoint({ from: path, to: join(folder, 'imported'), name: 'imported', signal: new AbortController().signal, say: () => undefined });
	const seconds = (performance.now() - started) / 1000;
	clearInterval(sampler);
	printWhere();
	const bytes = components[0]?.bytes ?? 0;
	printTable(['checkpoint', 'tensors', 'GB', 'seconds', 'MB/s', 'peak RSS MB'], [[
		`${size}, ${spec.num_layers} layers`, String(shapes.length), (bytes / 1e9).toFixed(2), seconds.toFixed(1), (bytes / 1e6 / seconds).toFixed(0), (peak / 1e6).toFixed(0),
	]]);
} finally {
	await rm(folder, { recursive: true, force: true });
}
