import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCE = new URL('../../src/', import.meta.url);
const TENSOR_LIBRARY = 'onnxruntime-node';

/** Where the compiled module at `entry` leads, itself or through ours. Types are gone by then. */
type Reach = {
	readonly packages: Set<string>;
	/** Those of OTHER_PROCESS that were come across. */
	readonly left: Set<string>;
};

/** `turbocast verify` computes in the process it was started in, and serves nobody: where it does is not followed. */
const OTHER_PROCESS = ['cli/verify.js → engine/open-device.js'];

const nameOf = (module: URL): string => module.href.slice(SOURCE.href.length);

const reachOf = (entry: URL, seen = new Set<string>()): Reach => {
	const reach: Reach = { packages: new Set(), left: new Set() };
	if (!seen.has(entry.href)) {
		seen.add(entry.href);
		const text = readFileSync(fileURLToPath(entry), 'utf8');
		for (const [, from, bare, dynamic] of text.matchAll(/^\s*(?:import|export)\s[^'";]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gmu)) {
			const name = from ?? bare ?? dynamic ?? '';
			if (!name.startsWith('.')) {
				reach.packages.add(name);
				continue;
			}
			const step = `${nameOf(entry)} → ${nameOf(new URL(name, entry))}`;
			if (dynamic !== undefined && OTHER_PROCESS.includes(step)) {
				reach.left.add(step);
				continue;
			}
			// What a command loads when it runs is loaded all the same.
			const further = reachOf(new URL(name, entry), seen);
			further.packages.forEach((each) => reach.packages.add(each));
			further.left.forEach((each) => reach.left.add(each));
		}
	}
	return reach;
};

test('the engine process has the tensor library', () => {
	assert.ok(reachOf(new URL('engine/engine-process.js', SOURCE)).packages.has(TENSOR_LIBRARY));
});

for (const entry of ['engine/engine-host.js', 'app.js', 'main.js', 'cli/generate.js', 'cli/serve.js'].filter((name) => existsSync(new URL(name, SOURCE)))) {
	test(`${entry} reaches the tensor library by no import: it would block the main process`, () => {
		const { packages, left } = reachOf(new URL(entry, SOURCE));
		assert.ok(packages.size > 0);
		assert.ok(!packages.has(TENSOR_LIBRARY));
		assert.deepEqual([...left], entry === 'main.js' ? OTHER_PROCESS : []);
	});
}
