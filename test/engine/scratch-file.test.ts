/** What was left behind by a process that was killed while it loaded is removed; what a living one uses is not. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { openScratchFile } from '../../src/engine/scratch-file.js';

test('bytes lie where it says, and the file goes with its process', () => {
	const own = openScratchFile();
	const folder = dirname(own.path);
	const offsets = [Uint8Array.of(1, 2, 3), Uint8Array.of(4)].map((bytes) => own.append(bytes));
	assert.deepEqual(offsets, [0, 64]);
	assert.equal(readFileSync(own.path)[64], 4);

	const { pid } = spawnSync(process.execPath, ['--version']);
	const orphan = join(dirname(folder), basename(folder).replace(`-${process.pid}-`, `-${pid}-`));
	assert.notEqual(orphan, folder);
	mkdirSync(orphan);
	writeFileSync(join(orphan, 'constants'), 'left behind');
	try {
		openScratchFile().remove();
		assert.deepEqual([existsSync(orphan), existsSync(own.path)], [false, true]);
	} finally {
		rmSync(orphan, { recursive: true, force: true });
		own.remove();
	}
	assert.equal(existsSync(folder), false);
});
