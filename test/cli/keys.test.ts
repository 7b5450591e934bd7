/** `turbocast keys` as an operator runs it. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { repositoryRoot } from '../repository.js';

const folder = mkdtempSync(join(tmpdir(), 'turbocast-keys-'));
after(() => rmSync(folder, { recursive: true }));
const turbocast = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
	spawnSync(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), ...args], { encoding: 'utf8', env: { ...process.env, XDG_CONFIG_HOME: folder } });

test('a key is printed once, kept as a hash, listed by its id and label, and revoked', () => {
	const made = turbocast('keys', 'create', '--label', 'laptop');
	assert.equal(made.status, 0, made.stderr);
	const key = made.stdout.trim();
	assert.match(key, /^sk_[\w-]{43}$/u);
	const file = join(folder, 'turbocast', 'keys.json');
	assert.ok(made.stderr.includes(file));
	assert.equal(readFileSync(file, 'utf8').includes(key), false);
	const listed = turbocast('keys').stdout;
	const id = /^(key_[0-9a-f]{12}) .* laptop$/mu.exec(listed)?.[1] ?? assert.fail(listed);
	assert.equal(turbocast('keys', 'revoke', 'key_other').status, 2);
	assert.equal(turbocast('keys', 'revoke', id).status, 0);
	assert.match(turbocast('keys', 'list').stdout, /no keys/u);
	for (const misuse of [['keys', 'make'], ['keys', 'revoke'], ['keys', 'list', 'x'], ['keys', '--label', 'x']]) {
		assert.equal(turbocast(...misuse).status, 2, misuse.join(' '));
	}
});

test('off the loopback the service does not start without a key, and says what to do', () => {
	const { status, stderr } = turbocast('serve', '--host', '0.0.0.0', '--port', '0');
	assert.equal(status, 2);
	assert.match(stderr, /turbocast keys create.*\[invalid_config\]/u);
});
