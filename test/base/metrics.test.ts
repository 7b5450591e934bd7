import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from '../../src/base/metrics.js';

test('writes counters, gauges and histograms as Prometheus text', () => {
	const metrics = new Metrics();
	const frames = metrics.counter('frames_total', 'Frames by outcome.');
	frames.add(1, { outcome: 'sent' });
	frames.add(2, { outcome: 'sent' });
	frames.add(1, { outcome: 'dropped' });
	let places = 2;
	metrics.gauge('places_free', 'Places.', () => places);
	places = 1;
	const encode = metrics.histogram('encode_ms', 'Encoding.', [1, 4]);
	for (const value of [0.5, 1, 3, 9]) {
		encode.observe(value);
	}
	assert.equal(metrics.text(), `# HELP frames_total Frames by outcome.
# TYPE frames_total counter
frames_total{outcome="sent"} 3
frames_total{outcome="dropped"} 1
# HELP places_free Places.
# TYPE places_free gauge
places_free 1
# HELP encode_ms Encoding.
# TYPE encode_ms histogram
encode_ms_bucket{le="1"} 2
encode_ms_bucket{le="4"} 3
encode_ms_bucket{le="+Inf"} 4
encode_ms_sum 13.5
encode_ms_count 4
`);
});

test('escapes what would end a label or a line', () => {
	const metrics = new Metrics();
	metrics.counter('errors_total', 'Errors.').add(1, { code: 'a"b\\c\nd' });
	assert.match(metrics.text(), /errors_total\{code="a\\"b\\\\c\\nd"\} 1\n/u);
});
