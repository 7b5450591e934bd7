// npm test [-- FILTER ...]: installs and builds when needed, then runs every compiled test whose path contains a filter.
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, sep } from 'node:path';
import { spawnSync } from 'node:child_process';
import { ensureBuilt, ensureInstalled, root } from './setup.mjs';
import { lanesOf } from './test-lanes.mjs';

ensureInstalled();
ensureBuilt();

/** Of a file that runs alone, all of its tests together, and of a test that names no other: room for a machine that is several times slower than ours. */
const TIMEOUT_MS = 600_000;

const folder = join(root, 'dist', 'test');
const tests = (at) =>
	readdirSync(at, { withFileTypes: true }).flatMap((entry) => {
		const path = join(at, entry.name);
		return entry.isDirectory() ? tests(path) : entry.name.endsWith('.test.js') ? [path] : [];
	});

const filters = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));
const files = tests(folder)
	.filter((path) => filters.length === 0 || filters.some((filter) => relative(root, path).includes(filter)))
	.map((path) => relative(folder, path))
	.sort();
if (files.length === 0) {
	console.error(`No test matches ${filters.join(' ')}`);
	process.exit(1);
}

const counted = mkdtempSync(join(tmpdir(), 'turbocast-tests-'));
const all = { tests: 0, passed: 0, failed: 0, skipped: 0, failures: [] };
let status = 0;
/** Runs files, so many at a time, and adds up what they came to. */
const run = (lane, concurrency) => {
	if (lane.length === 0) {
		return;
	}
	const counts = join(counted, String(concurrency));
	const result = spawnSync(process.execPath, [
		'--test', '--enable-source-maps', `--test-concurrency=${concurrency}`, `--test-timeout=${TIMEOUT_MS * concurrency}`,
		`--test-reporter=${process.stdout.isTTY ? 'spec' : 'tap'}`, '--test-reporter-destination=stdout',
		'--test-reporter=./scripts/test-count.mjs', `--test-reporter-destination=${counts}`,
		...lane.map((path) => join('dist', 'test', path)),
	], { cwd: root, stdio: 'inherit' });
	status ||= result.status ?? 1;
	const text = existsSync(counts) ? readFileSync(counts, 'utf8') : '';
	if (text === '') {
		throw new Error(`The run was ended by ${result.signal ?? result.error?.message ?? `status ${result.status}`} before its end.`);
	}
	const { tests: ran, passed, failed, skipped, failures } = JSON.parse(text);
	all.tests += ran;
	all.passed += passed;
	all.failed += failed;
	all.skipped += skipped;
	all.failures.push(...failures);
};
try {
	const { beside, alone } = lanesOf(files, folder);
	// First, since one of them builds what others load.
	run(alone, 1);
	run(beside, 2);
} finally {
	rmSync(counted, { recursive: true, force: true });
}
console.log(`\n${all.tests} tests in ${files.length} files: ${all.passed} passed, ${all.failed} failed, ${all.skipped} skipped`);
all.failures.forEach((failure) => console.log(`failed: ${failure.replaceAll(root + sep, '')}`));
process.exit(status);
