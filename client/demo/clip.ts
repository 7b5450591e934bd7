/** The last seconds of the video as an MP4 file: what was received, not encoded again. */
import type * as Mediabunny from 'mediabunny';
import type { ClipUnits } from './clip-worker.js';

/** Put there by the build; fetched when the first clip is made. */
const MUXER_PATH = '/client/demo/vendor/mediabunny.js';
const TICKS_PER_SECOND = 90_000;

const CODECS: { readonly [mimeType: string]: { readonly codec: 'avc' | 'vp8'; readonly codecString: string } } = {
	'video/h264': { codec: 'avc', codecString: 'avc1.42e01f' },
	'video/vp8': { codec: 'vp8', codecString: 'vp8' },
};

const toMp4 = async ({ mimeType, width, height, units }: ClipUnits): Promise<Blob> => {
	const format = CODECS[mimeType.toLowerCase()];
	const [first] = units;
	if (format === undefined || first === undefined) {
		throw new Error('There is nothing to download yet: a clip begins with the next key frame, in a few seconds.');
	}
	const { BufferTarget, EncodedPacket, EncodedVideoPacketSource, Mp4OutputFormat, Output } = (await import(MUXER_PATH)) as typeof Mediabunny;
	const target = new BufferTarget();
	const output = new Output({ format: new Mp4OutputFormat({ fastStart: 'in-memory' }), target });
	const source = new EncodedVideoPacketSource(format.codec);
	output.addVideoTrack(source);
	await output.start();
	const secondsAt = (index: number): number => (((units[index]?.rtpTimestamp ?? first.rtpTimestamp) - first.rtpTimestamp) >>> 0) / TICKS_PER_SECOND;
	for (const [index, unit] of units.entries()) {
		// The last one is shown as long as the one before.
		const durationS = index + 1 < units.length ? secondsAt(index + 1) - secondsAt(index) : secondsAt(index) - secondsAt(Math.max(0, index - 1));
		await source.add(new EncodedPacket(new Uint8Array(unit.data), unit.isKeyframe ? 'key' : 'delta', secondsAt(index), durationS), {
			decoderConfig: { codec: format.codecString, codedWidth: width, codedHeight: height },
		});
	}
	await output.finalize();
	return new Blob([target.buffer ?? new ArrayBuffer(0)], { type: 'video/mp4' });
};

export class ClipKeeper {
	readonly #worker: Worker | undefined;

	constructor() {
		this.#worker = typeof RTCRtpScriptTransform === 'undefined' ? undefined : new Worker('/client/demo/clip-worker.js', { type: 'module' });
	}

	/** False where the browser does not let a page see what it receives. */
	get isSupported(): boolean {
		return this.#worker !== undefined;
	}

	/** For each new video connection. */
	readonly watch = (receiver: RTCRtpReceiver): void => {
		if (this.#worker !== undefined && typeof RTCRtpScriptTransform !== 'undefined') {
			receiver.transform = new RTCRtpScriptTransform(this.#worker);
		}
	};

	/** Throws when nothing was received yet. */
	async take(seconds: number): Promise<Blob> {
		const worker = this.#worker;
		if (worker === undefined) {
			throw new Error('This browser does not let a page keep what it receives; Chrome, Edge, Firefox and Safari of the last years do.');
		}
		const answer = new Promise<ClipUnits>((resolve) => {
			worker.addEventListener('message', ({ data }: MessageEvent<ClipUnits>) => resolve(data), { once: true });
		});
		worker.postMessage({ seconds });
		return toMp4(await answer);
	}
}

/** Hands a file to the browser's downloads. */
export const download = (blob: Blob, name: string): void => {
	const link = document.createElement('a');
	link.href = URL.createObjectURL(blob);
	link.download = name;
	link.click();
	// Once the browser has taken it.
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
