/**
 * What encoding one frame costs, for every implementation, codec and size: through the encoder process, one frame at a time as
 * playout does it.
 *
 *     npm run bench -- encoder [FRAMES]
 *
 * "delay" is how many frames have to follow before a frame comes out; 0 is what latency needs.
 */
import { VIDEO_CODECS } from '../src/base/frame.js';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import { startEncoders, type EncoderHost } from '../src/media/encoder-host.js';
import type { VideoEncoder } from '../src/media/encoder.js';
import { ENCODER_IMPLEMENTATIONS } from '../src/media/encoders/frame-encoder.js';
import { movingPicture } from '../test/media/moving-picture.js';
import { medianAndP95, printTable, printWhere } from './report.js';

const [frames = '160'] = process.argv.slice(2);
const SIZES = [
	{ width: 128, height: 128, bitrateBps: 600_000 },
	{ width: 256, height: 256, bitrateBps: 1_200_000 },
	{ width: 480, height: 832, bitrateBps: 2_000_000 },
] as const;
const FPS = 16;
const WARM_UP_FRAMES = 16;
/** A frame that has not come out by then waits for a later one. */
const PATIENCE_MS = 500;

/** Frames that must follow the first before it comes out. */
const measureDelay = async (encoder: VideoEncoder, width: number, height: number): Promise<number> => {
	let isOut = false;
	const first = encoder.encode(movingPicture(0, width, height), 0).then(() => {
		isOut = true;
	});
	for (let delay = 0; ; delay += 1) {
		await Promise.race([first, systemClock.sleep(PATIENCE_MS)]);
		if (isOut) {
			return delay;
		}
		void encoder.encode(movingPicture(delay + 1, width, height), 0);
	}
};

const measure = async (host: EncoderHost, codec: (typeof VIDEO_CODECS)[number], { width, height, bitrateBps }: (typeof SIZES)[number]): Promise<string[]> => {
	const encoder = await host.open({ codec, width, height, fps: FPS, bitrateBps });
	const delay = await measureDelay(encoder, width, height);
	const inside: number[] = [];
	const roundTrip: number[] = [];
	const keyframeBytes: number[] = [];
	let bytes = 0;
	// Some grain, so that the rate control has to work as it does on real pictures.
	const pictures = Array.from({ length: 32 }, (_, index) => movingPicture(index, width, height, 6));
	for (let index = 0; index < WARM_UP_FRAMES + Number(frames); index += 1) {
		const picture = pictures[index % pictures.length];
		if (picture === undefined) {
			break;
		}
		if (index % 32 === 0) {
			encoder.requestKeyframe();
		}
		const startMs = systemClock.nowMs();
		const chunk = await encoder.encode({ ...picture, frameId: index }, index);
		if (index >= WARM_UP_FRAMES) {
			roundTrip.push(systemClock.nowMs() - startMs);
			inside.push(chunk.encodeMs);
			bytes += chunk.data.length;
			if (chunk.isKeyframe) {
				keyframeBytes.push(chunk.data.length);
			}
		}
	}
	await encoder.close();
	const kbps = (bytes * 8 * FPS) / Number(frames) / 1000;
	return [host.implementation, codec, `${width}x${height}`, medianAndP95(inside), medianAndP95(roundTrip), String(delay), `${kbps.toFixed(0)} of ${bitrateBps / 1000}`, `${(Math.max(...keyframeBytes) / 1000).toFixed(1)}`];
};

printWhere();
const rows: string[][] = [];
for (const implementation of ENCODER_IMPLEMENTATIONS) {
	try {
		const host = await startEncoders({ implementation, log: silentLog, clock: systemClock });
		for (const codec of VIDEO_CODECS) {
			for (const size of SIZES) {
				rows.push(await measure(host, codec, size));
			}
		}
		await host.close();
	} catch (error) {
		console.log(`${implementation}: ${String(error)}`);
	}
}
printTable(['encoder', 'codec', 'size', 'ms inside, median / p95', 'ms with the way there and back', 'delay, frames', 'kbit/s', 'largest key frame, kB'], rows);
