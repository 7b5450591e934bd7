/** The pages of README.md and docs/client.md, as they stand there: they show the picture, change the prompt, and say how long that took to be seen. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { repositoryRoot } from '../repository.js';
import { whyNoBrowser } from './chromium.js';
import { openStage, type Stage } from './stage.js';

const skip = whyNoBrowser();
let stage: Stage;
before(async () => {
	if (skip === false) {
		stage = await openStage();
	}
});
after(() => stage?.[Symbol.asyncDispose]());

for (const file of ['README.md', 'docs/client.md']) {
	test(`the eight lines of ${file} run`, { skip, timeout: 300_000 }, async () => {
		const program = /```ts\n([\s\S]*?)```/u.exec(readFileSync(join(repositoryRoot, file), 'utf8'))?.[1] ?? assert.fail('no program');
		assert.ok(program.includes("'ws://127.0.0.1:8080'"));
		assert.ok(program.trimEnd().split('\n').length <= 8);
		await using page = await stage.openPage();
		const said: string[] = [];
		const ended = new Promise<void>((resolve) => page.on('console', (message) => {
			said.push(message.text());
			if (message.text() === 'state ended') {
				resolve();
			}
		}));
		await page.addScriptTag({ type: 'module', content: `${program.replace("'ws://127.0.0.1:8080'", 'location.origin')}\nconsole.log('state', session.state.kind);` });
		await ended;
		assert.match(said.join('\n'), /^visible after \d+(?:\.\d+)? ms /mu);
		await page.waitForFunction(() => video.videoWidth > 0);
		assert.match(await (await fetch(new URL('/metrics', stage.service.url))).text(), /^turbocast_viewers 0$/mu);
	});
}
