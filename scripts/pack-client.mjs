// node scripts/pack-client.mjs [FOLDER]: makes the npm package of the client SDK out of `dist` and packs it into FOLDER (dist/package by default).
// The last line it prints is the path of the tarball.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { ensureBuilt, ensureInstalled, root } from './setup.mjs';

ensureInstalled();
ensureBuilt();

const target = resolve(process.argv[2] ?? join(root, 'dist', 'package'));
const staging = join(target, 'turbocast-client');
rmSync(staging, { recursive: true, force: true });
mkdirSync(staging, { recursive: true });

// What its three entries import, and the declarations beside it: not the page, not the server's half of the protocol folder.
const reached = new Set();
const reach = (file) => {
	if (reached.has(file)) {
		return;
	}
	reached.add(file);
	for (const path of [file, file.replace(/\.js$/u, '.d.ts')]) {
		for (const [, target] of readFileSync(path, 'utf8').matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/gu)) {
			reach(resolve(dirname(file), target));
		}
	}
};
for (const entry of ['index.js', 'react.js', 'node/index.js']) {
	reach(join(root, 'dist', 'client', entry));
}
for (const file of reached) {
	for (const path of [file, file.replace(/\.js$/u, '.d.ts')]) {
		const to = join(staging, relative(join(root, 'dist'), path));
		mkdirSync(dirname(to), { recursive: true });
		// Their maps stay behind: they point at sources that are not in the package.
		writeFileSync(to, readFileSync(path, 'utf8').replace(/^\/\/# sourceMappingURL=.*\n?/mu, ''));
	}
}
for (const name of ['package.json', 'README.md']) {
	cpSync(join(root, 'client', name), join(staging, name));
}
cpSync(join(root, 'LICENSE'), join(staging, 'LICENSE'));

const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';
const packed = spawnSync(npm, ['pack', '--silent', '--pack-destination', target], { cwd: staging, encoding: 'utf8' });
if (packed.status !== 0) {
	console.error(packed.stderr);
	process.exit(1);
}
const tarball = readdirSync(target).find((name) => name.endsWith('.tgz') && packed.stdout.includes(name));
if (tarball === undefined || !existsSync(join(target, tarball))) {
	console.error(`npm pack made no tarball:\n${packed.stdout}`);
	process.exit(1);
}
console.log(join(target, tarball));
