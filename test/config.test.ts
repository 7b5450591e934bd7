import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { CONFIG_SCHEMA, loadConfig, parseConfig } from '../src/config.js';
import { TurbocastError } from '../src/protocol/errors.js';
import { repositoryRoot } from './repository.js';

const manual = readFileSync(join(repositoryRoot, 'config/default.yaml'), 'utf8');

const isInvalidConfig = (...mentions: RegExp[]) => (error: unknown): boolean => {
	assert.ok(error instanceof TurbocastError);
	assert.equal(error.code, 'invalid_config');
	for (const mention of mentions) {
		assert.match(error.message, mention);
	}
	return true;
};

const inFile = <T>(text: string, use: (path: string) => T): T => {
	const folder = mkdtempSync(join(tmpdir(), 'turbocast-config-'));
	try {
		const path = join(folder, 'config.yaml');
		writeFileSync(path, text);
		return use(path);
	} finally {
		rmSync(folder, { recursive: true });
	}
};

test('config/default.yaml holds every key with exactly the default of the schema', () => {
	assert.deepEqual(parse(manual), parseConfig({}, 'defaults'));
});

test('config/default.yaml explains every key in the lines above it', () => {
	const lines = manual.split('\n');
	for (const [section, schema] of Object.entries(CONFIG_SCHEMA.shape)) {
		for (const key of Object.keys((schema as unknown as { shape: object }).shape)) {
			const at = lines.findIndex((line) => line.startsWith(`  ${key}:`));
			assert.ok(at > 0, `${section}.${key} is missing`);
			assert.match(lines[at - 1] ?? '', /^ {2}# .{10,}/u, `${section}.${key} has no comment`);
		}
	}
});

test('config/dev.yaml is valid', () => {
	assert.equal(loadConfig({ file: join(repositoryRoot, 'config/dev.yaml'), environment: {}, flags: {} }).log.level, 'debug');
});

test('an unknown key is refused with the keys that are known', () => {
	assert.throws(() => parseConfig({ server: { prot: 80 } }, 'x.yaml'), isInvalidConfig(/x\.yaml/u, /server\.prot/u, /known here: host, port/u));
	assert.throws(() => parseConfig({ sever: {} }, 'x.yaml'), isInvalidConfig(/`sever`/u));
});

test('all mistakes are reported at once, each with its key', () => {
	assert.throws(
		() => parseConfig({ server: { port: 70_000 }, engine: { threads: 'two' }, log: { level: 'loud' } }, 'x.yaml'),
		isInvalidConfig(/3 mistakes/u, /server\.port/u, /engine\.threads/u, /log\.level/u),
	);
});

test('a section that is not an object is refused', () => {
	assert.throws(() => parseConfig({ server: 5 }, 'x.yaml'), isInvalidConfig(/`server` must be an object/u));
});

test('half a UDP port range is refused', () => {
	assert.throws(() => parseConfig({ media: { udp_port_min: 40_000 } }, 'x'), isInvalidConfig(/set together/u));
	assert.throws(() => parseConfig({ media: { udp_port_min: 40_000, udp_port_max: 30_000 } }, 'x'), isInvalidConfig(/below/u));
	assert.throws(() => parseConfig({ media: { udp_port_min: 40_000, udp_port_max: 40_000 } }, 'x'), isInvalidConfig(/below/u));
});

test('an engine has room for twice as many streams as there may be sessions', () => {
	assert.equal(parseConfig({ engine: { max_streams: 20 }, limits: { max_sessions: 10 } }, 'x').engine.max_streams, 20);
	assert.throws(() => parseConfig({ engine: { max_streams: 19 }, limits: { max_sessions: 10 } }, 'x'), isInvalidConfig(/engine\.max_streams/u, /twice `limits\.max_sessions` \(20\)/u));
	assert.throws(() => parseConfig({ limits: { max_sessions: 1000 } }, 'x'), isInvalidConfig(/engine\.max_streams/u));
});

test('flags win over the environment, which wins over the file', () => {
	inFile('server:\n  port: 1\n  host: file\nlog:\n  level: warn\n', (file) => {
		const config = loadConfig({ file, environment: { TURBOCAST_SERVER__PORT: '2', TURBOCAST_SERVER__HOST: 'environment' }, flags: { server: { port: 3 } } });
		assert.deepEqual([config.server.port, config.server.host, config.log.level], [3, 'environment', 'warn']);
	});
});

test('a missing file and a file that is not YAML are explained', () => {
	assert.throws(() => loadConfig({ file: '/nowhere/at.all', environment: {}, flags: {} }), isInvalidConfig(/cannot be read/u, /--config/u));
	inFile('server: [', (file) => assert.throws(() => loadConfig({ file, environment: {}, flags: {} }), isInvalidConfig(/not valid YAML/u)));
	inFile('just words', (file) => assert.throws(() => loadConfig({ file, environment: {}, flags: {} }), isInvalidConfig(/sections with keys/u)));
});
