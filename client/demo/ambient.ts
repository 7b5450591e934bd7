/** The light that falls from the picture onto the page: two colours, a few times a second. */

const INTERVAL_MS = 500;

/** Runs until the page goes. Does nothing for people who want no motion. */
export const startAmbient = (video: HTMLVideoElement, isPlaying: () => boolean): void => {
	const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
	if (context === null || matchMedia('(prefers-reduced-motion: reduce)').matches) {
		return;
	}
	context.canvas.width = 2;
	context.canvas.height = 1;
	context.imageSmoothingQuality = 'high';
	setInterval(() => {
		if (!isPlaying() || document.hidden || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) {
			return;
		}
		context.drawImage(video, 0, 0, 2, 1);
		const { data } = context.getImageData(0, 0, 2, 1);
		const { style } = document.documentElement;
		style.setProperty('--glow-left', [...data.subarray(0, 3)].join(' '));
		style.setProperty('--glow-right', [...data.subarray(4, 7)].join(' '));
	}, INTERVAL_MS);
};
