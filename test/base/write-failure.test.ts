/** What the disk refuses is told in words. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { cannotWrite } from '../../src/base/write-failure.js';

test('a full disk is told as one', { skip: existsSync('/dev/full') ? false : 'this system has no /dev/full' }, async () => {
	await assert.rejects(writeFile('/dev/full', 'more').catch(cannotWrite('/models/wan/dit.safetensors')), {
		code: 'output_failed', message: '/models/wan/dit.safetensors cannot be written: the disk is full; make room or choose another place.',
	});
});

test('a reason that is not known is passed on', () => {
	assert.throws(() => cannotWrite('/x')(new Error('it burns')), { code: 'output_failed', message: /\/x cannot be written: Error: it burns; choose another place/u });
});
