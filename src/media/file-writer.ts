/**
 * Writes pictures into a video file. Until it is complete the file lies beside its place under a temporary name: a file of the
 * given name is always a whole one, and one that was there before stays until it can be replaced.
 */
import { randomBytes } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { i420Bytes, type RawFrame } from '../base/frame.js';
import { cannotWrite, writeFailure } from '../base/write-failure.js';
import { TurbocastError } from '../protocol/errors.js';
import type { FileSink, OpenFileSink, VideoFormat } from './file-sink.js';
import { openMp4 } from './mp4.js';
import { openY4m } from './y4m.js';

export type VideoFile = {
	/** Awaiting is backpressure. Throws `output_failed`. */
	readonly write: (frame: RawFrame) => Promise<void>;
	/** Completes the file and gives it its name; idempotent. Throws `output_failed`, after which nothing is left of it. */
	readonly close: () => Promise<void>;
	/** Removes what was written; does nothing after `close`. Never throws. */
	readonly abort: () => Promise<void>;
};

const FORMATS: { readonly [extension: string]: OpenFileSink } = { '.mp4': openMp4, '.y4m': openY4m };
/** Longest side, pixels: what H.264 level 6.2 allows, rounded down. */
const MOST_PIXELS = 16_384;

/** Makes the empty temporary file, and finds out whether one may. */
const reserve = async (path: string): Promise<string> => {
	const isFolder = await stat(path).then((found) => found.isDirectory(), () => false);
	if (isFolder) {
		throw new TurbocastError('output_failed', `${path} is a folder; give the name of a file.`);
	}
	const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}.part`);
	try {
		await (await open(temporary, 'wx')).close();
	} catch (error) {
		throw writeFailure(path, error);
	}
	return temporary;
};

/** Opens `path` for writing; its extension, .mp4 or .y4m, decides the format. Throws `invalid_option` or `output_failed`. */
export const openVideoFile = async (path: string, format: VideoFormat): Promise<VideoFile> => {
	const openSink = FORMATS[extname(path).toLowerCase()];
	if (openSink === undefined) {
		throw new TurbocastError('invalid_option', `The output file ${path} must end in ${Object.keys(FORMATS).join(' or ')}.`);
	}
	const { width, height, fps } = format;
	if ([width, height].some((pixels) => !Number.isInteger(pixels) || pixels < 2 || pixels > MOST_PIXELS || pixels % 2 !== 0) || !(fps > 0 && fps <= 240)) {
		throw new TurbocastError('invalid_option', `A video file needs even sides of at most ${MOST_PIXELS} pixels and at most 240 frames a second, not ${width}x${height} at ${fps}.`);
	}
	const temporary = await reserve(path);
	let sink: FileSink;
	try {
		sink = openSink(temporary, format);
	} catch (error) {
		await rm(temporary, { force: true });
		throw error;
	}
	let frames = 0;
	let ending: Promise<void> | undefined;

	const discard = async (): Promise<void> => {
		await sink.destroy();
		await rm(temporary, { force: true }).catch(() => undefined);
	};

	const complete = async (): Promise<void> => {
		try {
			if (frames === 0) {
				throw new TurbocastError('output_failed', `No picture was written, so ${path} was not made.`);
			}
			await sink.finish();
			await rename(temporary, path).catch(cannotWrite(path));
		} catch (error) {
			await discard();
			throw error;
		}
	};

	return {
		write: async (frame) => {
			if (ending !== undefined) {
				throw new TurbocastError('output_failed', `The file ${path} is closed already.`);
			}
			if (frame.width !== width || frame.height !== height || frame.data.byteLength !== i420Bytes(width, height)) {
				throw new TurbocastError('output_failed', `The file ${path} takes pictures of ${width}x${height}, not ${frame.width}x${frame.height}.`);
			}
			frames += 1;
			await sink.write(frame.data);
		},
		close: () => (ending ??= complete()),
		abort: () => (ending === undefined ? (ending = discard()) : ending.catch(() => undefined)),
	};
};
