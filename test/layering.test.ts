/**
 * The import table. The compiler keeps half of it (protocol has neither DOM nor Node types, the client no Node types); this
 * test reads the import lines of every file for the rest.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from './repository.js';

/** What a folder of `src` may import besides base and protocol; `client` is outside `src`. */
const MAY_IMPORT: { readonly [folder: string]: readonly string[] } = {
	base: [],
	protocol: [],
	model: [],
	engine: ['model'],
	verify: ['engine', 'model'],
	bench: ['engine', 'model'],
	media: [],
	transport: [],
	conformance: ['transport'],
	server: ['engine', 'media', 'transport', 'model'],
	cli: ['bench', 'conformance', 'engine', 'media', 'model', 'server', 'transport', 'verify', '.'],
	'.': ['base', 'bench', 'cli', 'conformance', 'engine', 'media', 'model', 'protocol', 'server', 'transport', 'verify'],
	client: [],
};

/** `protocol` stands on nothing, `base` on the protocol's errors alone; the client must not see `base`. */
const GROUND: { readonly [folder: string]: readonly string[] } = { protocol: [], base: ['protocol'], client: ['protocol'] };

/** The one door of each package. */
const DOORS: { readonly [name: string]: readonly string[] } = {
	'onnxruntime-node': ['src/engine/backends/onnxruntime.ts'],
	'koffi': ['src/base/foreign.ts'],
	'werift': ['src/transport/', 'client/node/frame-receiver.ts'],
	'entities': ['src/model/text/prompt-cleaning.ts'],
	'@huggingface/hub': ['src/cli/hub.ts'],
	'ws': ['src/server/control.ts', 'src/conformance/', 'client/node/node-session.ts'],
	'react': ['client/react.ts'],
	'mediabunny': ['client/demo/clip.ts', 'src/media/recording-file.ts'],
	'jose': ['src/server/tokens.ts'],
	'pino': ['src/base/log.ts'],
	'uuid': ['src/server/'],
	'yaml': ['src/config.ts'],
	'node-av': ['src/media/encoders/'],
	'@ffmpeg-installer/ffmpeg': ['src/media/'],
};

const sources = (folder: string): string[] =>
	readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
		const path = join(folder, entry.name);
		return entry.isDirectory() ? sources(path) : entry.name.endsWith('.ts') ? [path] : [];
	});

const files = [...sources(join(repositoryRoot, 'src')), ...sources(join(repositoryRoot, 'client'))];

/** Top folder of a file: `engine` for src/engine/backends/x.ts, `.` for src/main.ts, `client` for client/x.ts. */
const folderOf = (file: string): string => {
	const parts = relative(repositoryRoot, file).split(sep);
	if (parts[0] === 'client') {
		return 'client';
	}
	return parts.length === 2 ? '.' : (parts[1] ?? '.');
};

const importsOf = (file: string): string[] =>
	[...readFileSync(file, 'utf8').matchAll(/(?:^|\n)\s*(?:import|export)\b[^'"\n;]*?(?:\n[^'"\n;]*?)*?from\s+['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)import\s+['"]([^'"]+)['"]/gu)]
		.map((match) => match[1] ?? match[2] ?? match[3] ?? '');

test('the reader of import lines finds every form', () => {
	const own = importsOf(join(repositoryRoot, 'test', 'layering.test.ts'));
	assert.ok(own.includes('node:assert/strict') && own.includes('./repository.js'));
});

test('every folder imports only what its row of the table names', () => {
	const wrong: string[] = [];
	for (const file of files) {
		const from = folderOf(file);
		const allowed = [...(MAY_IMPORT[from] ?? []), ...(GROUND[from] ?? ['base', 'protocol'])];
		assert.ok(MAY_IMPORT[from] !== undefined, `src/${from} has no row in the import table`);
		for (const target of importsOf(file).filter((name) => name.startsWith('.'))) {
			const path = resolve(dirname(file), target.replace(/\.js$/u, '.ts'));
			const to = folderOf(path);
			if (to !== from && !allowed.includes(to)) {
				wrong.push(`${relative(repositoryRoot, file)} imports ${target}`);
			}
			if (!existsSync(path)) {
				wrong.push(`${relative(repositoryRoot, file)} imports ${target}, which does not exist`);
			}
		}
	}
	assert.deepEqual(wrong, []);
});

/** What is loaded with a file: its imports, theirs and so on, types and `import()` left out. */
const loadedWith = (file: string, seen = new Set<string>()): Set<string> => {
	const name = relative(repositoryRoot, file).split(sep).join('/');
	if (!seen.has(name)) {
		seen.add(name);
		for (const [, target] of readFileSync(file, 'utf8').matchAll(/^(?:import|export) (?!type )[^;]*?from '(\.[^']+)'/gmu)) {
			loadedWith(resolve(dirname(file), (target ?? '').replace(/\.js$/u, '.ts')), seen);
		}
	}
	return seen;
};

test('a command starts without what only another one needs: the server and its transport are loaded by those that use them', () => {
	const loaded = [...loadedWith(join(repositoryRoot, 'src', 'main.ts'))];
	assert.ok(loaded.includes('src/cli/generate.ts') && loaded.includes('src/engine/engine-host.ts'));
	assert.deepEqual(loaded.filter((name) => name === 'src/app.ts' || name === 'src/server/server.ts' || name.startsWith('src/transport/')), []);
});

test('every package is imported only through its door, and only declared packages are', () => {
	const wrong: string[] = [];
	for (const file of files) {
		const name = relative(repositoryRoot, file).split(sep).join('/');
		for (const target of importsOf(file).filter((entry) => !entry.startsWith('.') && !entry.startsWith('node:'))) {
			const packageName = target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : (target.split('/')[0] ?? '');
			const doors = DOORS[packageName];
			if (doors === undefined || !doors.some((door) => name === door || (door.endsWith('/') && name.startsWith(door)))) {
				wrong.push(`${name} imports ${packageName}`);
			}
		}
	}
	assert.deepEqual(wrong, []);
});

test('no file is a junk drawer, and files over 500 lines say why', () => {
	const wrong = files.filter((file) => /(?:^|[/-])(?:utils?|helpers?|misc|common|types)\.ts$/u.test(file.split(sep).join('/')));
	assert.deepEqual(wrong.map((file) => relative(repositoryRoot, file)), []);
	const long = files.filter((file) => {
		const text = readFileSync(file, 'utf8');
		return text.split('\n').length > 500 && !/one subject/u.test(text.slice(0, 1500));
	});
	assert.deepEqual(long.map((file) => relative(repositoryRoot, file)), []);
});

test('every runtime package has a line in ARCHITECTURE.md', () => {
	const manifest = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as { dependencies: object; optionalDependencies: object };
	const architecture = readFileSync(join(repositoryRoot, 'ARCHITECTURE.md'), 'utf8');
	for (const name of [...Object.keys(manifest.dependencies), ...Object.keys(manifest.optionalDependencies)]) {
		assert.match(architecture, new RegExp(`\`${name.replace('/', '\\/')}\``, 'u'), `${name} is missing`);
	}
});
