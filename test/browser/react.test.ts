/** The hook in the real React, bundled as an application would bundle it, in its strict mode, which mounts everything twice. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
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

const APPLICATION = `
import { StrictMode, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { useLiveSession } from './dist/client/react.js';

const Live = () => {
	const { video, session, state } = useLiveSession();
	return <>
		<video ref={video} muted playsInline />
		<button disabled={state.kind !== 'ready'} onClick={() => session?.start('a cat jumps')}>{state.kind}</button>
	</>;
};
const App = () => {
	const [isThere, setThere] = useState(true);
	return <>{isThere ? <Live /> : 'gone'}<a id="leave" onClick={() => setThere(false)}>leave</a></>;
};
document.body.innerHTML = '<div id="root"></div>';
createRoot(document.getElementById('root')).render(<StrictMode><App /></StrictMode>);
`;

test('a component shows the video of its session and the state as it changes; leaving ends the session', { skip }, async () => {
	const { outputFiles } = await build({
		stdin: { contents: APPLICATION, loader: 'jsx', resolveDir: join(repositoryRoot) }, bundle: true, format: 'iife', jsx: 'automatic', write: false, define: { 'process.env.NODE_ENV': '"development"' }, logLevel: 'silent',
	});
	const page = await stage.browser.newPage();
	page.setDefaultTimeout(60_000);
	const complaints: string[] = [];
	page.on('pageerror', (error) => complaints.push(error.message));
	page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
	await page.goto(`${stage.service.url}healthz`);
	await page.addScriptTag({ content: outputFiles[0]?.text ?? '' });
	await page.getByRole('button', { name: 'ready' }).click();
	await page.getByRole('button', { name: 'generating' }).waitFor();
	await page.waitForFunction(() => (document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0) >= 5);
	await page.click('#leave');
	await page.getByText('gone').waitFor();
	while (((await (await fetch(`${stage.service.url}readyz`)).json()) as { places_free?: number }).places_free !== 2) {
		// Asked again until the server has heard; the time limit is the assertion.
	}
	assert.deepEqual(complaints, []);
	await page.close();
});
