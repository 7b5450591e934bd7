/** What the documents name must exist: files, links, npm scripts and measurements. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from './repository.js';

const documents = [
	...readdirSync(repositoryRoot).filter((name) => name.endsWith('.md')),
	...readdirSync(join(repositoryRoot, 'docs')).map((name) => join('docs', name)),
	'models/toybox/CARD.md',
].filter((name) => name.endsWith('.md') && name !== 'CHANGELOG.md');
const textOf = (name: string): string => readFileSync(join(repositoryRoot, name), 'utf8');

test('every source file that a document names exists', () => {
	const missing = documents.flatMap((name) =>
		[...textOf(name).matchAll(/`((?:src|client|test|bench|scripts|training|config|docs|models)\/[\w./-]*\w\/?)`/gu)]
			.map((match) => match[1] ?? '')
			.filter((path) => !existsSync(join(repositoryRoot, path)))
			.map((path) => `${name}: ${path}`));
	assert.deepEqual(missing, []);
});

test('every relative link of a document leads somewhere', () => {
	const missing = documents.flatMap((name) =>
		[...textOf(name).matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/gu)]
			.map((match) => normalize(join(dirname(name), match[1] ?? '')))
			.filter((path) => !existsSync(join(repositoryRoot, path)))
			.map((path) => `${name}: ${path}`));
	assert.deepEqual(missing, []);
});

test('every npm script and every measurement that a document names exists', () => {
	const { scripts } = JSON.parse(textOf('package.json')) as { scripts: { [name: string]: string } };
	for (const name of documents) {
		for (const [, script = ''] of textOf(name).matchAll(/npm run ([\w-]+)/gu)) {
			assert.ok(scripts[script] !== undefined, `${name}: npm run ${script}`);
		}
		for (const [, bench = ''] of textOf(name).matchAll(/npm run bench -- ([\w-]+)/gu)) {
			assert.ok(bench === 'NAME' || existsSync(join(repositoryRoot, 'bench', `${bench}.bench.ts`)), `${name}: npm run bench -- ${bench}`);
		}
	}
});
