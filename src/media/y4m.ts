/**
 * YUV4MPEG2: uncompressed pictures after one line of text, read by ffmpeg, mpv and every encoder. `C420jpeg` says that chroma
 * samples lie between their four pixels, which is where averaging puts them; `XCOLORRANGE` is what ffmpeg understands.
 *
 *     YUV4MPEG2 W128 H128 F16:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n
 *     FRAME\n  Y plane  U plane  V plane      for every picture
 */
import { createWriteStream } from 'node:fs';
import { finished } from 'node:stream/promises';
import { TurbocastError } from '../protocol/errors.js';
import type { FileSink, OpenFileSink, VideoFormat } from './file-sink.js';

const FRAME_MARK = Buffer.from('FRAME\n', 'latin1');

const header = ({ width, height, fps }: VideoFormat): string => {
	const rate = Number.isInteger(fps) ? `${fps}:1` : `${Math.round(fps * 1000)}:1000`;
	return `YUV4MPEG2 W${width} H${height} F${rate} Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n`;
};

export const openY4m: OpenFileSink = (path, format): FileSink => {
	const stream = createWriteStream(path);
	let failure: TurbocastError | undefined;
	stream.on('error', (error) => {
		failure = new TurbocastError('output_failed', `The file could not be written (${error.message}); check the free space and the permissions.`, { cause: error });
	});
	const write = (bytes: Uint8Array): Promise<void> =>
		new Promise((resolve, reject) => {
			// The callback comes when the bytes are with the operating system, so nothing piles up here.
			stream.write(bytes, (error) => (error === null || error === undefined ? resolve() : reject(failure ?? TurbocastError.from(error, 'output_failed'))));
		});
	const begun = write(Buffer.from(header(format), 'latin1'));
	begun.catch(() => undefined);
	return {
		write: async (data) => {
			await begun;
			await write(FRAME_MARK);
			await write(data);
		},
		finish: async () => {
			await begun;
			stream.end();
			await finished(stream).catch((error: unknown) => {
				throw failure ?? TurbocastError.from(error, 'output_failed');
			});
		},
		destroy: async () => {
			stream.destroy();
			await finished(stream).catch(() => undefined);
		},
	};
};
