/** A model with one word in it that makes numbers which are not finite. */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseSafetensors, tensorEntry } from '../../src/model/safetensors.js';
import type { RandomModel } from '../model/random-model.js';

export const POISONED = 'rocket';

/** Writes NaN over the embedding of `POISONED` and renews the hash, so that the file counts as whole. */
export const poisonWord = async (model: RandomModel): Promise<void> => {
	const { files, text } = model.spec;
	const { words } = JSON.parse(await readFile(join(model.path, files.tokenizer.file), 'utf8')) as { words: string[] };
	const path = join(model.path, files.text.file);
	const bytes = new Uint8Array(await readFile(path));
	const entry = tensorEntry(parseSafetensors(path, bytes), 'token_embedding.weight', [text.vocab_size, text.dim]);
	const row = entry.byteLength / text.vocab_size;
	const view = new DataView(bytes.buffer, bytes.byteOffset + entry.offset + words.indexOf(POISONED) * row, row);
	for (let at = 0; at < row; at += Float32Array.BYTES_PER_ELEMENT) {
		view.setFloat32(at, Number.NaN, true);
	}
	await writeFile(path, bytes);
	const json = JSON.parse(await readFile(join(model.path, 'model.json'), 'utf8')) as { files: { text: { sha256: string } } };
	json.files.text.sha256 = createHash('sha256').update(bytes).digest('hex');
	await writeFile(join(model.path, 'model.json'), JSON.stringify(json));
};
