/** The browser of the end-to-end tests: a Chromium of the system, without a window. */
import { existsSync } from 'node:fs';
import { chromium, type Browser } from 'playwright-core';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/usr/bin/google-chrome-stable'];

/** `CHROMIUM_PATH` names another one. */
export const findChromium = (): string | undefined => {
	const named = process.env['CHROMIUM_PATH'];
	return [...(named === undefined || named === '' ? [] : [named]), ...PATHS].find((path) => existsSync(path));
};

/** Why browser tests cannot run, for `skip`; never a reason in CI, where their absence must be seen. */
export const whyNoBrowser = (): string | false =>
	findChromium() === undefined && process.env['CI'] === undefined
		? `no Chromium at ${PATHS.join(', ')} and CHROMIUM_PATH is not set`
		: false;

/**
 * Runs in a page, before its scripts: WebRTC has a minute to come up before the control socket stands in for it, where the SDK gives it two seconds and a
 * busy machine may need more. For what is about the picture by WebRTC, in pages that leave the way to the SDK.
 */
export const waitForWebRtc = (): void => {
	const PATIENCE_MS = 2000;
	const { setTimeout: set } = globalThis;
	globalThis.setTimeout = ((run: () => void, delayMs?: number) => set(run, delayMs === PATIENCE_MS ? 60_000 : delayMs)) as typeof setTimeout;
};

/** `hidesAddresses`: its own behind names like x.local, as every Chromium does for pages that may not use the camera. */
export const launchChromium = async ({ hidesAddresses = false } = {}): Promise<Browser & AsyncDisposable> => {
	const executablePath = findChromium();
	if (executablePath === undefined) {
		throw new Error('No Chromium was found; install one or set CHROMIUM_PATH.');
	}
	return chromium.launch({
		executablePath,
		args: [
			'--no-sandbox', '--disable-gpu', '--autoplay-policy=no-user-gesture-required',
			// A machine with nothing but a loopback interface must do.
			'--allow-loopback-in-peer-connection', ...(hidesAddresses ? [] : ['--disable-features=WebRtcHideLocalIpsWithMdns']),
		],
	});
};
