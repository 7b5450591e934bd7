/** Tells in a page, over its reloads, when frames of the page's video were shown. */
import type { Page } from 'playwright-core';

declare global {
	var returned: {
		/** `performance.now()` of the last frame; 0 before the first. */
		lastFrameAtMs: number;
		/** Resolves with the moment of the first frame after this one. */
		readonly frameAfter: (ms: number) => Promise<number>;
	};
}

/** Before the page is opened. */
export const watchReturn = (page: Page): Promise<unknown> =>
	page.addInitScript(() => {
		const waiting = new Set<{ readonly afterMs: number; readonly resolve: (atMs: number) => void }>();
		const shownAtMs: number[] = [];
		globalThis.returned = {
			lastFrameAtMs: 0,
			frameAfter: (afterMs) => new Promise((resolve) => {
				const found = shownAtMs.find((atMs) => atMs > afterMs);
				if (found === undefined) {
					waiting.add({ afterMs, resolve });
				} else {
					resolve(found);
				}
			}),
		};
		document.addEventListener('DOMContentLoaded', () => {
			const video = document.getElementById('video') as HTMLVideoElement;
			const look = (): void => void video.requestVideoFrameCallback((atMs) => {
				globalThis.returned.lastFrameAtMs = atMs;
				shownAtMs.push(atMs);
				for (const each of waiting) {
					if (atMs > each.afterMs) {
						waiting.delete(each);
						each.resolve(atMs);
					}
				}
				look();
			});
			look();
		});
	});
