import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCE = new URL('../../src/', import.meta.url);
const TENSOR_LIBRARY = 'onnxruntime-node';

/** Where the compiled module at `entry` leads, itself or through ours. Types are gone by then. */
type Reach = {
	readonly packages: Set<string>;
	/** Our modules that are only loaded when the code asks for them, as `importer → imported`. */
	readonly onDemand: Set<string>;
};

const nameOf = (module: URL): string => module.href.slice(SOURCE.href.length);

const reachOf = (entry: URL, seen = new Set<string>()): Reach => {
	const reach: Reach = { packages: new Set(), onDemand: new Set() };
	if (!seen.has(entry.href)) {
		seen.add(entry.href);
		const text = readFileSync(fileURLToPath(entry), 'utf8');
		for (const [, from, bare, dynamic] of text.matchAll(/^\s*(?:import|export)\s[^'";]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gmu)) {
			const name = from ?? bare ?? dynamic ?? '';
			if (!name.startsWith('.')) {
				reach.packages.add(name);
			} else if (dynamic === undefined) {
				const further = reachOf(new URL(name, entry), seen);
				further.packages.forEach((each) => reach.packages.add(each));
				further.onDemand.forEach((each) => reach.onDemand.add(each));
			} else {
				reach.onDemand.add(`${nameOf(entry)} → ${nameOf(new URL(name, entry))}`);
			}
		}
	}
	return reach;
};

test('the engine process has the tensor library', () => {
	assert.ok(reachOf(new URL('engine/engine-process.js', SOURCE)).packages.has(TENSOR_LIBRARY));
});

for (const entry of ['engine/engine-host.js', 'app.js', 'main.js', 'cli/generate.js', 'cli/serve.js'].filter((name) => existsSync(new URL(name, SOURCE)))) {
	test(`${entry} reaches the tensor library by no import: it would block the main process`, () => {
		const { packages, onDemand } = reachOf(new URL(entry, SOURCE));
		assert.ok(packages.size > 0);
		assert.ok(!packages.has(TENSOR_LIBRARY));
		// `turbocast verify` computes in the process it was started in, and serves nobody.
		assert.deepEqual([...onDemand], entry === 'main.js' ? ['cli/verify.js → engine/open-device.js'] : []);
	});
}
