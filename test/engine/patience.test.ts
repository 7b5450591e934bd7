import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EnginePatience, MAX_LOAD_MS, PUBLISHED } from '../../src/engine/patience.js';
import type { ModelSpec } from '../../src/model/spec.js';

const own = { format: 1 } as ModelSpec;
const published = { format: 2 } as ModelSpec;

test('a model of our own is given up after ten seconds, whatever was measured', () => {
	const patience = new EnginePatience(own);
	patience.observe('128x128', 3_600_000);
	assert.deepEqual([patience.loadMs, patience.silentMs([]), patience.silentMs(['128x128'])], [MAX_LOAD_MS, 10_000, 10_000]);
});

test('a published model has hours for a size that was never made, and then four of its longest chunks, ten minutes at least', () => {
	const patience = new EnginePatience(published);
	assert.equal(patience.silentMs([]), PUBLISHED.leastMs);
	assert.equal(patience.silentMs(['832x480']), PUBLISHED.unmeasuredMs);
	patience.observe('832x480', 20_000);
	assert.equal(patience.silentMs(['832x480']), PUBLISHED.leastMs);
	patience.observe('832x480', 900_000);
	patience.observe('832x480', 100_000);
	assert.equal(patience.silentMs(['832x480']), 3_600_000);
	assert.equal(patience.silentMs(['832x480', '1280x720']), PUBLISHED.unmeasuredMs, 'one that is unknown decides for all');
	patience.observe('1280x720', 24 * 3_600_000);
	assert.equal(patience.silentMs(['1280x720']), PUBLISHED.unmeasuredMs, 'never more than for the unknown');
	for (let size = 0; size < 64; size += 1) {
		patience.observe(`size ${size}`, 1);
	}
	assert.equal(patience.silentMs(['832x480']), PUBLISHED.unmeasuredMs, 'what was measured long ago is forgotten');
});
