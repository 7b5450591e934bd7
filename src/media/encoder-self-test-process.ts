/** Tries one encoder and tells what came of it. Arguments: its name, the path of ffmpeg (empty for the package's), width and height of the pictures. */
import { TurbocastError } from '../protocol/errors.js';
import { halfSide } from './halve.js';
import type { EncoderImplementation } from './encoders/frame-encoder.js';
import { loadEncoder } from './encoders/load.js';
import { tryOut, type TryOut } from './encoders/try-out.js';

const [implementation, ffmpegPath = '', width, height] = process.argv.slice(2);
const size = { width: Number(width), height: Number(height) };

const test = async (): Promise<TryOut> => {
	const library = await loadEncoder(implementation as EncoderImplementation, ffmpegPath);
	const whole = await tryOut(library, size);
	// What a viewer on a narrow network gets.
	const { psnrDb } = await tryOut(library, { width: halfSide(size.width), height: halfSide(size.height) });
	return { ...whole, psnrDb: Math.min(whole.psnrDb, psnrDb) };
};

process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(0));
process.send?.(await test().catch((error: unknown) => ({ why: TurbocastError.from(error, 'encoder_failed').message })));
