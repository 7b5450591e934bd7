/** Where the ffmpeg program is: the one door to `@ffmpeg-installer/ffmpeg`. Its binary is GPL-licensed and runs only as a child process. */
import { createRequire } from 'node:module';
import { TurbocastError, type ErrorCode } from '../protocol/errors.js';

/** `configured`, or the program of the package when that is empty. Throws `code` with what to do when the package has none for this platform. */
export const ffmpegPath = (code: ErrorCode, configured = ''): string => {
	if (configured !== '') {
		return configured;
	}
	try {
		// Not a static import: the package throws while it loads where it has no binary, and most commands do not need it.
		const installer = createRequire(import.meta.url)('@ffmpeg-installer/ffmpeg') as { readonly path: string };
		return installer.path;
	} catch (error) {
		throw new TurbocastError(code, 'The ffmpeg program is missing; install the package @ffmpeg-installer/ffmpeg (npm install), or name an ffmpeg of your own in the setting media.ffmpeg_path.', { cause: error });
	}
};
