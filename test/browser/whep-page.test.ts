/** The page of docs/players.md, as it stands there, in a real browser: it must show a picture, and end its session. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { repositoryRoot } from '../repository.js';
import { whyNoBrowser } from './chromium.js';
import { openStage } from './stage.js';

const skip = whyNoBrowser();

test('the page without the SDK shows the video that its WHEP offer asked for, and DELETE ends it', { skip, timeout: 300_000 }, async () => {
	const script = /```js\n([\s\S]*?)```/u.exec(readFileSync(join(repositoryRoot, 'docs', 'players.md'), 'utf8'))?.[1] ?? assert.fail('no script');
	await using stage = await openStage();
	await using page = await stage.openPage();
	await page.addScriptTag({ type: 'module', content: `${script}\nvideo.play();\nglobalThis.end = end;` });
	await page.waitForFunction(() => video.videoWidth > 0 && video.getVideoPlaybackQuality().totalVideoFrames > 8);
	assert.match(await (await fetch(new URL('/metrics', stage.service.url))).text(), /^turbocast_viewers 1$/mu);
	const status = await page.evaluate(async () => (await (globalThis as unknown as { end: () => Promise<Response> }).end()).status);
	assert.equal(status, 200);
	assert.match(await (await fetch(new URL('/metrics', stage.service.url))).text(), /^turbocast_viewers 0$/mu);
});
