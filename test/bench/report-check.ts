/** What every report of `turbocast bench gpu` must hold. */
import assert from 'node:assert/strict';
import type { GpuBenchReport } from '../../src/bench/gpu-bench.js';

export const checkReport = (report: GpuBenchReport): void => {
	const { limits, own } = report;
	assert.ok(limits !== undefined);
	for (const { copyBytesPerSecond, flopsPerSecond } of [limits.cpu, limits.device]) {
		assert.ok(copyBytesPerSecond > 0 && Number.isFinite(copyBytesPerSecond));
		assert.ok((flopsPerSecond.float32 ?? 0) > 0 && Number.isFinite(flopsPerSecond.float32));
	}
	for (const stage of [...own, ...report.wan]) {
		for (const figure of [stage.medianMs, stage.leastBytes, stage.limitMs, stage.shareOfLimit, stage.firstMs, stage.flops.linear + stage.flops.attention + stage.flops.convolution]) {
			assert.ok(figure > 0 && Number.isFinite(figure), JSON.stringify(stage));
		}
		assert.ok(Math.abs(stage.shareOfLimit - stage.limitMs / stage.medianMs) < 1e-9);
	}
};
