/** Which test files run beside others: those that only compute. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { repositoryRoot } from './repository.js';

type Lanes = { readonly beside: readonly string[]; readonly alone: readonly string[] };
const { ALONE, BESIDE, COMPUTING, lanesOf } = await import(pathToFileURL(join(repositoryRoot, 'scripts/test-lanes.mjs')).href) as {
	readonly ALONE: readonly string[]; readonly BESIDE: readonly string[]; readonly COMPUTING: readonly string[]; readonly lanesOf: (files: readonly string[], folder: string) => Lanes;
};

const files = readdirSync(join(repositoryRoot, 'dist/test'), { recursive: true, withFileTypes: true })
	.filter(({ name }) => name.endsWith('.test.js')).map((entry) => relative(join(repositoryRoot, 'dist/test'), join(entry.parentPath, entry.name)));

test('a file of a folder that computes runs beside others, unless it or a part of it starts a browser, an engine, an encoder or a server, or measures time', () => {
	const folder = mkdtempSync(join(tmpdir(), 'turbocast-lanes-'));
	const write = (path: string, text: string): string => {
		mkdirSync(dirname(join(folder, path)), { recursive: true });
		writeFileSync(join(folder, path), text);
		return path;
	};
	try {
		write('parts/page.js', "import { chromium } from 'playwright-core';");
		write('parts/clock.js', "import { around } from './around.js'; export const nowMs = () => performance.now();");
		write('parts/around.js', "import { nowMs } from './clock.js';");
		const computes = [write('engine/computes.test.js', "import { nowMs } from '../parts/clock.js';"), write('model/deep/computes.test.js', '')];
		const alone = [
			write('engine/browser.test.js', "import { page } from '../parts/page.js';"),
			...['../../src/engine/engine-host.js', '../../src/media/encoder-host.js', '../../src/app.js', '../../src/transport/webrtc.js', '../cli/served.js'].map((path, index) =>
				write(`engine/process-${index}.test.js`, `import { x } from '${path}';`)),
			write('engine/measures.test.js', 'const tookMs = performance.now() - startedMs;'),
			write('elsewhere/computes.test.js', ''),
			write('engine/orphan.test.js', ''),
		];
		assert.deepEqual(lanesOf([...computes, ...alone], folder), { beside: computes, alone });
	} finally {
		rmSync(folder, { recursive: true });
	}
});

test('every test file is in one lane, and every name of the lists is one of a file or folder that is there', () => {
	const { beside, alone } = lanesOf(files, join(repositoryRoot, 'dist/test'));
	assert.deepEqual([...beside, ...alone].sort(), [...files].sort());
	assert.ok(['engine/kv-parity.test.js', 'model/graph-builder.test.js', 'verify/verify.test.js'].every((file) => beside.includes(file)));
	assert.ok(['browser/page.test.js', 'engine/engine-host.test.js', 'server/session.test.js', 'transport/webrtc.test.js'].every((file) => alone.includes(file)));
	assert.deepEqual([...COMPUTING, ...ALONE, ...BESIDE].filter((start) => !files.some((file) => file.startsWith(start))), []);
});
