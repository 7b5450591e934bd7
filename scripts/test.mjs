// npm test [-- FILTER ...]: installs and builds when needed, then runs every compiled test whose path contains a filter.
import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { spawnSync } from 'node:child_process';
import { ensureBuilt, ensureInstalled, root } from './setup.mjs';

ensureInstalled();
ensureBuilt();

const tests = (folder) =>
	readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
		const path = join(folder, entry.name);
		return entry.isDirectory() ? tests(path) : entry.name.endsWith('.test.js') ? [path] : [];
	});

const filters = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const files = tests(join(root, 'dist', 'test'))
	.map((path) => relative(root, path))
	.filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)))
	.sort();
if (files.length === 0) {
	console.error(`No test matches ${filters.join(' ')}`);
	process.exit(1);
}
// One file at a time: many start an engine of their own, and timings on two cores should not fight.
const result = spawnSync(
	process.execPath,
	['--test', '--enable-source-maps', '--test-concurrency=1', '--test-timeout=240000', ...files],
	{ cwd: root, stdio: 'inherit' },
);
process.exit(result.status ?? 1);
