import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';

const LOG_URL = new URL('../../src/base/log.js', import.meta.url).href;

/** Runs a few log calls in a process of its own and gives the lines it wrote to standard error. */
const linesOf = (options: object): { [key: string]: unknown }[] => {
	const script = `
		const { createLog } = await import(${JSON.stringify(LOG_URL)});
		const log = createLog(${JSON.stringify(options)}).child({ session: 's1' });
		log.debug({}, 'fine print');
		log.info({ prompt: 'a secret cat', address: '10.0.0.7', seed: 3 }, 'started');
		log.error({ err: new Error('bad') }, 'gave up');`;
	const { stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
	assert.equal(status, 0, stderr);
	return stderr.split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as { [key: string]: unknown });
};

test('prompts and addresses are left out unless the operator asks for them', () => {
	const [line] = linesOf({ level: 'info', personalData: false });
	assert.equal(line?.['msg'], 'started');
	assert.equal(line['seed'], 3);
	assert.equal(line['session'], 's1');
	assert.ok(!('prompt' in line) && !('address' in line));
	const [open] = linesOf({ level: 'info', personalData: true });
	assert.equal(open?.['prompt'], 'a secret cat');
	assert.equal(open['address'], '10.0.0.7');
});

test('the level decides what is written, and silent writes nothing', () => {
	assert.deepEqual(linesOf({ level: 'error', personalData: false }).map((line) => line['msg']), ['gave up']);
	assert.deepEqual(linesOf({ level: 'debug', personalData: false }).map((line) => line['msg']), ['fine print', 'started', 'gave up']);
	assert.deepEqual(linesOf({ level: 'silent', personalData: false }), []);
});

test('nothing is written to standard output, which belongs to results', () => {
	const script = `const { createLog } = await import(${JSON.stringify(LOG_URL)}); createLog({ level: 'debug', personalData: true }).error({}, 'x');`;
	assert.equal(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }), '');
});
