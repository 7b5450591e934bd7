/** What is published, as it is published: packed by npm, installed from the tarball, bundled, run. */
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { repositoryRoot } from '../repository.js';
import { startMachine, startService } from '../server/service.js';

/** What a page pays for the core, minified and compressed. */
const MOST_BYTES = 25_000;

let folder: string;
before(() => {
	folder = mkdtempSync(join(tmpdir(), 'turbocast-client-'));
	const printed = execFileSync(process.execPath, [join(repositoryRoot, 'scripts', 'pack-client.mjs'), folder], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
	const tarball = printed.trim().split('\n').at(-1) ?? '';
	const app = join(folder, 'app');
	mkdirSync(app);
	writeFileSync(join(app, 'package.json'), '{ "type": "module" }');
	// Without a registry: what it depends on is lent by this repository.
	execFileSync('npm', ['install', '--offline', '--omit=optional', '--omit=peer', '--no-audit', '--no-fund', '--silent', tarball], { cwd: app, stdio: ['ignore', 'ignore', 'inherit'] });
	for (const name of ['werift', 'ws', 'react', 'react-dom', '@types']) {
		symlinkSync(join(repositoryRoot, 'node_modules', name), join(app, 'node_modules', name));
	}
});
after(() => rmSync(folder, { recursive: true, force: true }));

const installed = (...path: string[]): string => join(folder, 'app', 'node_modules', 'turbocast-client', ...path);

test('the package has the version of the service, and the versions of what it shares with it', () => {
	const read = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as { version: string; dependencies: Record<string, string>; optionalDependencies: Record<string, string> };
	const [ours, service] = [read(installed('package.json')), read(join(repositoryRoot, 'package.json'))];
	assert.equal(ours.version, service.version);
	for (const [name, version] of Object.entries(ours.optionalDependencies)) {
		assert.equal(service.dependencies[name], version, name);
	}
});

test('the core, bundled for a page, is under 25 kB', async () => {
	const { outputFiles, metafile } = await build({ entryPoints: [installed('client', 'index.js')], bundle: true, minify: true, format: 'esm', platform: 'browser', write: false, metafile: true, logLevel: 'silent' });
	const bytes = gzipSync(outputFiles[0]?.contents ?? new Uint8Array(0)).length;
	assert.ok(bytes > 5000 && bytes < MOST_BYTES, `${bytes} bytes`);
	assert.deepEqual(Object.keys(metafile.inputs).filter((input) => /react|werift|node\//u.test(input.split('turbocast-client/').at(-1) ?? '')), [], 'no framework and no Node in it');
});

test('its declarations stand alone: strict programs for page, Node and React compile against them', () => {
	const app = join(folder, 'app');
	const readme = readFileSync(installed('README.md'), 'utf8');
	const programs = [...readme.matchAll(/```(tsx?)\n([\s\S]*?)```/gu)];
	assert.equal(programs.length, 3);
	programs.forEach(([, language = 'ts', text = ''], index) => writeFileSync(join(app, `program${index}.${language}`), text));
	writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({
		compilerOptions: { strict: true, exactOptionalPropertyTypes: true, noEmit: true, target: 'es2022', module: 'nodenext', lib: ['ES2023', 'ES2024.String', 'DOM', 'DOM.Iterable', 'DOM.AsyncIterable'], types: ['node'], jsx: 'react-jsx' },
		include: ['program*'],
	}));
	execFileSync(process.execPath, [join(repositoryRoot, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', app], { encoding: 'utf8', stdio: ['ignore', 'inherit', 'inherit'] });
});

test('the programs of Node in the pages run as they stand there, from the installed package, and give frames with their records', async () => {
	await using machine = await startMachine();
	await using service = await startService(machine, { iceServers: [] }, createWebRtcTransport({ announceAddresses: [], iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock }));
	for (const page of [installed('README.md'), join(repositoryRoot, 'docs', 'client.md')]) {
		const text = [...readFileSync(page, 'utf8').matchAll(/```ts\n([\s\S]*?)```/gu)].map((match) => match[1] ?? '').find((each) => each.includes('turbocast-client/node')) ?? assert.fail('no program');
		assert.ok(text.includes("'ws://127.0.0.1:8080'") && text.trimEnd().split('\n').length <= 8);
		writeFileSync(join(folder, 'app', 'page-program.js'), text.replace("'ws://127.0.0.1:8080'", `'${service.url}'`));
		// It has no end.
		const program = spawn(process.execPath, ['page-program.js'], { cwd: join(folder, 'app'), stdio: ['ignore', 'pipe', 'inherit'] });
		const lines: string[] = [];
		for await (const line of createInterface(program.stdout)) {
			lines.push(line);
			if (lines.length === 8) {
				program.kill();
			}
		}
		assert.ok(lines.some((line) => /^\d+ .*(?:h264|vp8) \d+/u.test(line)), lines.join('\n'));
	}
});

test('the eight-line program of Node runs from the installed package, and hears how long its change took', async () => {
	await using machine = await startMachine();
	await using service = await startService(machine, { iceServers: [] }, createWebRtcTransport({ announceAddresses: [], iceServers: [], fps: machine.model.spec.fps, log: silentLog, clock: systemClock }));
	const program = `import { connect } from 'turbocast-client/node';
const session = connect('${service.url}');
await session.start('a cat jumps on the beach at night');
const change = await session.setPrompt('a cat jumps in the snow');
for await (const _ of session.frames()) {
	if (await Promise.race([change.displayed, undefined])) { break; }
}
console.log(JSON.stringify({ ...(await change.displayed), ...(await session.stop()) }));`;
	assert.equal(program.split('\n').length, 8);
	writeFileSync(join(folder, 'app', 'program.js'), program);
	const { stdout } = await promisify(execFile)(process.execPath, ['program.js'], { cwd: join(folder, 'app'), timeout: 200_000 });
	const said = JSON.parse(stdout) as { latencyMs: number; kind: string };
	assert.equal(said.kind, 'ended');
	assert.ok(said.latencyMs > 0 && said.latencyMs < 200_000, stdout);
});
