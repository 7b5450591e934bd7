/** `turbocast models` called wrongly, and what it lists of folders that are damaged. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parseArguments } from '../../src/cli/arguments.js';
import { models, MODELS_FLAGS } from '../../src/cli/models.js';
import { loadConfig } from '../../src/config.js';
import { listComponentFolders } from '../../src/model/component-folder.js';
import { listModels } from '../../src/model/model-folder.js';
import type { ErrorCode } from '../../src/protocol/errors.js';

const root = mkdtempSync(join(tmpdir(), 'turbocast-models-'));
after(() => rmSync(root, { recursive: true, force: true }));

const call = (...words: string[]): Promise<void> =>
	models(parseArguments(words, MODELS_FLAGS), loadConfig({ file: undefined, environment: {}, flags: { engine: { models_dir: root } } }), new AbortController().signal);

const WRONG: readonly (readonly [words: readonly string[], code: ErrorCode, says: RegExp])[] = [
	[['lst'], 'invalid_option', /Use `turbocast models` to list models/u],
	[['list', 'toybox'], 'invalid_option', /Use `turbocast models` to list models/u],
	[['show', 'a', 'b'], 'invalid_option', /Use `turbocast models` to list models/u],
	[['show', 'nowhere'], 'model_not_found', /There is no model folder .*nowhere/u],
	[['show', '../toybox'], 'model_not_found', /is not a model name/u],
	[['show', 'toybox', '--as', 'x'], 'invalid_option', /--as is of `models import` and `models join`, not of `models show`/u],
	[['--decoder', 'vae'], 'invalid_option', /--decoder is of `models join`, not of `models list`/u],
	[['import', 'x.pth', '--as', 'x', '--recipe', 'rcm'], 'invalid_option', /--recipe is of `models join`, not of `models import`/u],
	[['import', 'x.pth'], 'invalid_option', /import DIR\|FILE --as NAME/u],
	[['import', 'x.pth', 'y.pth', '--as', 'x'], 'invalid_option', /import DIR\|FILE --as NAME/u],
	[['import', 'x.pth', '--as', '.hidden'], 'model_not_found', /is not a model name/u],
	[['import', join(root, 'x.pth'), '--as', 'x'], 'invalid_option', /There is no file or folder/u],
	[['join', '--as', 'x'], 'invalid_option', /join FOLDER\.\.\. --as NAME/u],
	[['join', 'nowhere', '--as', 'x'], 'invalid_option', /nowhere is no folder of imported networks/u],
	[['join', 'nowhere', '--as', 'x', '--recipe', 'magic'], 'invalid_option', /--recipe must be one of/u],
	[['pull', 'a', 'b'], 'invalid_option', /Use `turbocast models pull SET`/u],
	[['pull', 'nothing-of-the-kind'], 'invalid_option', /There is no set "nothing-of-the-kind" to pull; there are /u],
	[['pull', 'wan-vae', '--accept-license', 'nothing-of-the-kind'], 'invalid_option', /There is no set "nothing-of-the-kind"/u],
	[['pull', 'wan-vae', '--hub', 'somewhere'], 'invalid_option', /"somewhere" is no address of a hub/u],
];

test('called wrongly, it says how it is called', async () => {
	for (const [words, code, message] of WRONG) {
		await assert.rejects(call(...words), { code, message }, words.join(' '));
	}
});

test('a damaged folder is listed with what is wrong, a link as what it leads to, and what is not finished not at all', async () => {
	const outside = mkdtempSync(join(tmpdir(), 'turbocast-outside-'));
	try {
		const components = { format: 1, name: 'else', license: 'none', components: [{ component: 'vae', kind: 'wan-vae', title: 'Wan VAE', source: ['x.pth'], dimensions: {}, file: 'vae.safetensors', bytes: 0, sha256: '0'.repeat(64) }] };
		writeFileSync(join(outside, 'component.json'), JSON.stringify(components));
		symlinkSync(outside, join(root, 'link'));
		for (const name of ['cut', '.cut.unfinished-host-1']) {
			mkdirSync(join(root, name));
			writeFileSync(join(root, name, 'component.json'), JSON.stringify(components).slice(0, 50));
			writeFileSync(join(root, name, 'model.json'), '{');
		}
		const listed = await listComponentFolders(root);
		assert.deepEqual(listed.map((entry) => [entry.name, 'folder' in entry ? entry.folder.license : entry.error.code]), [['cut', 'model_invalid'], ['link', 'none']]);
		assert.deepEqual((await listModels(root)).map(({ name }) => name), ['cut']);
	} finally {
		rmSync(outside, { recursive: true, force: true });
	}
});
