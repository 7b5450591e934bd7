// Makes a fresh checkout runnable: installs the packages of the lockfile and builds, each only when it is needed.
// Plain JavaScript without dependencies, because it runs before any of them is there.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync, mkdirSync, copyFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const SOURCE_FOLDERS = ['src', 'client', 'test', 'bench'];
const COPIED_SUFFIXES = ['.html', '.css', '.svg', '.ico', '.webmanifest'];
/** Packages that the page loads as they are: it has no bundler. */
const VENDORED = [['mediabunny/dist/bundles/mediabunny.min.mjs', 'client/demo/vendor/mediabunny.js']];
const STAMP = join(root, 'dist', '.built-from');

/** Runs a command in the repository's root with its output shown, and ends this process with its status when it fails. */
export const run = (command, args, options = {}) => {
	const result = spawnSync(command, args, { cwd: root, stdio: options.quiet ? ['ignore', 2, 2] : 'inherit', env: process.env });
	if (result.error) {
		console.error(`${command}: ${result.error.message}`);
		process.exit(1);
	}
	if (result.status !== 0) {
		process.exit(result.status ?? 1);
	}
};

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

/** Installs the locked packages unless the installed tree already matches the lockfile. */
export const ensureInstalled = () => {
	const lock = join(root, 'package-lock.json');
	const installed = join(root, 'node_modules', '.package-lock.json');
	if (!existsSync(lock)) {
		return; // An installed package: its dependencies came with it.
	}
	if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) {
		return;
	}
	const stamp = join(root, 'node_modules', '.installed-from');
	const hash = createHash('sha256').update(readFileSync(lock)).digest('hex');
	if (existsSync(installed) && ((existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) || sameVersions(lock, installed))) {
		return;
	}
	console.error('Installing packages (once) ...');
	run(npm, ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { quiet: true });
	// Optional packages that could not be had here are not tried again at every start.
	writeFileSync(stamp, hash);
};

const sameVersions = (lock, installed) => {
	const wanted = JSON.parse(readFileSync(lock, 'utf8')).packages;
	const present = JSON.parse(readFileSync(installed, 'utf8')).packages;
	// Those of other platforms are missing for good; the ones that we name ourselves are needed to build.
	const named = Object.keys(wanted['']?.optionalDependencies ?? {}).map((name) => `node_modules/${name}`);
	return Object.entries(wanted).every(
		([path, entry]) => path === '' || (entry.optional === true && !named.includes(path)) || present[path]?.version === entry.version,
	);
};

const sources = (folder) => {
	const found = [];
	for (const entry of readdirSync(folder, { withFileTypes: true })) {
		const path = join(folder, entry.name);
		if (entry.isDirectory()) {
			found.push(...sources(path));
		} else {
			found.push(path);
		}
	}
	return found;
};

const allSources = () =>
	SOURCE_FOLDERS.map((name) => join(root, name)).filter((folder) => existsSync(folder)).flatMap(sources);

const newest = () => {
	const files = [...allSources(), join(root, 'tsconfig.base.json'), join(root, 'package.json')].filter((file) => existsSync(file));
	// The count is part of the stamp so that deleting a file also rebuilds.
	return `${files.length} ${Math.max(...files.map((file) => statSync(file).mtimeMs))}`;
};

/** Compiles with `tsc -b` and copies what the compiler leaves out. */
export const build = () => {
	mkdirSync(join(root, 'dist'), { recursive: true });
	const stamp = newest();
	run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b'], { quiet: true });
	for (const file of allSources()) {
		if (COPIED_SUFFIXES.some((suffix) => file.endsWith(suffix))) {
			const target = join(root, 'dist', relative(root, file));
			mkdirSync(dirname(target), { recursive: true });
			copyFileSync(file, target);
		}
	}
	for (const [from, to] of VENDORED) {
		mkdirSync(dirname(join(root, 'dist', to)), { recursive: true });
		copyFileSync(join(root, 'node_modules', from), join(root, 'dist', to));
	}
	writeFileSync(STAMP, stamp);
};

/** Builds unless `dist` was built from exactly these sources. An installed package ships `dist` and no sources. */
export const ensureBuilt = () => {
	if (!existsSync(join(root, 'src')) || !existsSync(join(root, 'node_modules', 'typescript'))) {
		return;
	}
	if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === newest()) {
		return;
	}
	console.error('Building ...');
	build();
};
