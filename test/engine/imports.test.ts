import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCE = new URL('../../src/', import.meta.url);
const TENSOR_LIBRARY = 'onnxruntime-node';

/** Every package that a compiled module imports, directly or through ours. Types are gone by then. */
const packagesOf = (entry: URL, seen = new Set<string>()): Set<string> => {
	const packages = new Set<string>();
	if (!seen.has(entry.href)) {
		seen.add(entry.href);
		const text = readFileSync(fileURLToPath(entry), 'utf8');
		for (const [, from, bare, dynamic] of text.matchAll(/^\s*(?:import|export)\s[^'";]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gmu)) {
			const name = from ?? bare ?? dynamic ?? '';
			if (name.startsWith('.')) {
				packagesOf(new URL(name, entry), seen).forEach((each) => packages.add(each));
			} else {
				packages.add(name);
			}
		}
	}
	return packages;
};

test('the engine process has the tensor library', () => {
	assert.ok(packagesOf(new URL('engine/engine-process.js', SOURCE)).has(TENSOR_LIBRARY));
});

for (const entry of ['engine/engine-host.js', 'app.js', 'main.js', 'cli/generate.js', 'cli/serve.js'].filter((name) => existsSync(new URL(name, SOURCE)))) {
	test(`${entry} reaches the tensor library by no import: it would block the main process`, () => {
		const packages = packagesOf(new URL(entry, SOURCE));
		assert.ok(packages.size > 0);
		assert.ok(!packages.has(TENSOR_LIBRARY));
	});
}
