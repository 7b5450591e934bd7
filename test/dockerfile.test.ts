/** No container engine is needed to see that the Dockerfile names only what exists. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import { CONFIG_SCHEMA, loadConfig } from '../src/config.js';
import { Auth } from '../src/server/auth.js';
import { repositoryRoot } from './repository.js';

const dockerfile = readFileSync(join(repositoryRoot, 'Dockerfile'), 'utf8').replace(/\\\n\s*/gu, ' ');
const instructions = dockerfile.split('\n').filter((line) => /^[A-Z]+ /u.test(line)).map((line) => {
	const [, verb = '', rest = ''] = /^([A-Z]+)\s+(.*)$/u.exec(line) ?? [];
	return { verb, rest };
});
const manifest = JSON.parse(readFileSync(join(repositoryRoot, 'package.json'), 'utf8')) as {
	scripts: { [name: string]: string }; bin: { [name: string]: string }; dependencies: object; optionalDependencies: object;
};

test('every copied path exists in the repository, or is made by the build', () => {
	const missing: string[] = [];
	for (const { rest } of instructions.filter(({ verb }) => verb === 'COPY')) {
		const words = rest.split(/\s+/u);
		const fromBuild = words[0]?.startsWith('--from=build') === true;
		for (const source of words.filter((word) => !word.startsWith('--')).slice(0, -1)) {
			const path = fromBuild ? source.replace(/^\/app\//u, '') : source;
			if (!existsSync(join(repositoryRoot, path))) {
				missing.push(path);
			}
		}
	}
	assert.deepEqual(missing, []);
});

test('everything the build compiles is copied before it runs', () => {
	const references = JSON.parse(readFileSync(join(repositoryRoot, 'tsconfig.json'), 'utf8')) as { references: { path: string }[] };
	const buildAt = instructions.findIndex(({ verb, rest }) => verb === 'RUN' && rest.startsWith('npm run build'));
	const copied = instructions.slice(0, buildAt).filter(({ verb }) => verb === 'COPY').map(({ rest }) => rest.split(/\s+/u)[0]);
	for (const { path } of references.references) {
		assert.ok(copied.includes(path.split('/')[0]), `${path} is compiled but not copied`);
	}
});

test('every npm script and every command that it runs exists', () => {
	for (const [, script = ''] of dockerfile.matchAll(/npm run ([\w:-]+)/gu)) {
		assert.ok(manifest.scripts[script] !== undefined, `there is no script ${script}`);
	}
	const command = JSON.parse(instructions.find(({ verb }) => verb === 'CMD')?.rest ?? '[]') as string[];
	assert.deepEqual(command, ['node', manifest.bin['turbocast'], 'serve']);
});

test('it runs as a user that is not root and has a health check on the path that says whether it lives', () => {
	const user = instructions.filter(({ verb }) => verb === 'USER').at(-1)?.rest;
	assert.ok(user !== undefined && user !== 'root');
	const check = instructions.find(({ verb }) => verb === 'HEALTHCHECK')?.rest ?? '';
	assert.match(check, /127\.0\.0\.1:8080\/healthz/u);
	assert.match(readFileSync(join(repositoryRoot, 'src/server/routes.ts'), 'utf8'), /'\/healthz'/u);
});

test('the environment variables that it sets are keys of the configuration, the ports among them agree', () => {
	for (const [, section = '', key = ''] of dockerfile.matchAll(/TURBOCAST_([A-Z]+)__([A-Z_]+)/gu)) {
		const shape = (CONFIG_SCHEMA.shape as unknown as { [name: string]: { shape: object } })[section.toLowerCase()]?.shape;
		assert.ok(shape !== undefined && key.toLowerCase() in shape, `${section}.${key} is not a key`);
	}
	const [, from, to] = /EXPOSE .*?(\d+)-(\d+)\/udp/u.exec(dockerfile) ?? [];
	assert.match(dockerfile, new RegExp(`UDP_PORT_MIN=${from ?? 'none'}\\b`, 'u'));
	assert.match(dockerfile, new RegExp(`UDP_PORT_MAX=${to ?? 'none'}\\b`, 'u'));
});

test('the GPL argument removes packages that are really there', () => {
	const removed = [...(/rm -rf ([^;]*)/u.exec(dockerfile)?.[1] ?? '').matchAll(/node_modules\/((?:@[\w-]+\/)?[\w-]+)/gu)].map((match) => match[1] ?? '');
	assert.ok(removed.includes('node-av'));
	const lock = JSON.parse(readFileSync(join(repositoryRoot, 'package-lock.json'), 'utf8')) as { packages: object };
	for (const name of removed) {
		assert.ok(Object.keys(lock.packages).some((path) => path.startsWith(`node_modules/${name}`)), `${name} is not in the lockfile`);
	}
});

test('every package that brings a binary is named with its licence', () => {
	const header = readFileSync(join(repositoryRoot, 'Dockerfile'), 'utf8').split('FROM')[0] ?? '';
	for (const name of ['onnxruntime-node', 'node-av', '@ffmpeg-installer/linux-x64']) {
		assert.match(header, new RegExp(`${name}.*\\((?:MIT|GPL[^)]*)\\)`, 'u'));
		assert.ok(readFileSync(join(repositoryRoot, 'THIRD_PARTY.md'), 'utf8').includes(name.split('/')[0] ?? name));
	}
});

test('it starts with the key that its first lines give it, and without one it does not', async () => {
	const settings = Object.fromEntries([...dockerfile.matchAll(/\b(TURBOCAST_[A-Z]+__[A-Z_]+)=([\w./]+)/gu)].map(([, name = '', value]) => [name, value]));
	assert.equal(settings['TURBOCAST_SERVER__HOST'], '0.0.0.0');
	const [, variable = '', before = '', after = ''] = /docker run -e (\w+)="(.*?)\$KEY(.*?)"/u.exec(dockerfile) ?? [];
	const open = (environment: { [name: string]: string | undefined }): Promise<Auth> => {
		const { auth } = loadConfig({ environment, flags: {} });
		return Auth.open({ keys: auth.keys, keysFile: undefined, secretsPerMinute: 1, log: silentLog, clock: systemClock });
	};
	const locked = await open({ ...settings, [variable]: `${before}sk_${'0123456789abcdef'.repeat(4)}${after}` });
	locked.assertMayListen('0.0.0.0');
	const keyless = await open(settings);
	assert.throws(() => keyless.assertMayListen('0.0.0.0'), /needs a key/u);
	const folder = /\/[^/]+/u.exec(settings['TURBOCAST_AUTH__KEYS_FILE'] ?? '')?.[0] ?? 'none';
	assert.match(dockerfile, new RegExp(`mkdir ${folder} && chown node ${folder}`, 'u'));
	assert.match(dockerfile, new RegExp(`-v [\\w-]+:${folder} `, 'u'));
});
