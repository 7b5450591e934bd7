// A reporter of node:test for scripts/test.mjs: what a run came to, as one object of JSON.
export default async function* (events) {
	const counts = { tests: 0, passed: 0, failed: 0, skipped: 0, failures: [] };
	for await (const { type, data } of events) {
		if ((type !== 'test:pass' && type !== 'test:fail') || data.details?.type === 'suite') {
			continue;
		}
		counts.tests += 1;
		if (data.skip !== undefined || data.todo !== undefined) {
			counts.skipped += 1;
		} else if (type === 'test:pass') {
			counts.passed += 1;
		} else {
			counts.failed += 1;
			counts.failures.push(`${data.name} (${data.file ?? 'no file'})`);
		}
	}
	yield JSON.stringify(counts);
}
