/**
 * Keeps the access units of the last half minute as they come in, on their way to the decoder (WebRTC Encoded Transform). A worker, so that
 * the page is never between the network and the picture.
 */

type EncodedFrame = { readonly data: ArrayBuffer; readonly type: 'key' | 'delta' | 'empty'; readonly getMetadata: () => { readonly rtpTimestamp?: number; readonly mimeType?: string; readonly width?: number; readonly height?: number } };
type Transformer = { readonly readable: ReadableStream<EncodedFrame>; readonly writable: WritableStream<EncodedFrame>; readonly sendKeyFrameRequest: () => Promise<unknown> };

export type KeptUnit = { readonly data: ArrayBuffer; readonly isKeyframe: boolean; readonly rtpTimestamp: number };
export type ClipUnits = { readonly mimeType: string; readonly width: number; readonly height: number; readonly units: readonly KeptUnit[] };

/** 90 kHz: half a minute. */
const KEPT_TICKS = 30 * 90_000;
/** A clip begins with a key frame; the server makes one only when asked. */
const KEYFRAME_EVERY_TICKS = 5 * 90_000;
/** Half a minute at 60 frames a second, should a stream's clock stand still. */
const MOST_UNITS = 1800;

let units: KeptUnit[] = [];
let format = { mimeType: '', width: 0, height: 0 };

const since = (from: KeptUnit | undefined, to: KeptUnit): number => (from === undefined ? 0 : (to.rtpTimestamp - from.rtpTimestamp) >>> 0);

const keep = (frame: EncodedFrame): KeptUnit | undefined => {
	const { rtpTimestamp, mimeType = '', width = 0, height = 0 } = frame.getMetadata();
	if (rtpTimestamp === undefined || frame.type === 'empty') {
		return undefined;
	}
	const unit: KeptUnit = { data: frame.data.slice(0), isKeyframe: frame.type === 'key', rtpTimestamp };
	if (unit.isKeyframe) {
		format = { mimeType, width: width === 0 ? format.width : width, height: height === 0 ? format.height : height };
	}
	if (unit.isKeyframe || units.length > 0) {
		units.push(unit);
	}
	// What is too old goes, up to the key frame with which the rest can begin.
	const next = units.findIndex((other, index) => index > 0 && other.isKeyframe);
	if (next > 0 && (since(units[next], unit) >= KEPT_TICKS || units.length > MOST_UNITS)) {
		units.splice(0, next);
	}
	return unit;
};

const follow = async (transformer: Transformer): Promise<void> => {
	units = [];
	let keyframe: KeptUnit | undefined;
	await transformer.readable.pipeThrough(new TransformStream<EncodedFrame, EncodedFrame>({
		transform: (frame, controller) => {
			const unit = keep(frame);
			controller.enqueue(frame);
			if (unit?.isKeyframe === true) {
				keyframe = unit;
			} else if (unit !== undefined && (keyframe === undefined || since(keyframe, unit) >= KEYFRAME_EVERY_TICKS)) {
				keyframe = unit;
				transformer.sendKeyFrameRequest().catch(() => undefined);
			}
		},
	})).pipeTo(transformer.writable);
};

addEventListener('rtctransform', (event) => {
	const { transformer } = event as unknown as { readonly transformer: Transformer };
	follow(transformer).catch(() => undefined);
});

/** `{ seconds }` is answered by `ClipUnits`: those of the last seconds, from a key frame at or before them on. */
addEventListener('message', ({ data }: MessageEvent<{ readonly seconds: number }>) => {
	const last = units.at(-1);
	const first = last === undefined ? -1 : units.findLastIndex((unit) => unit.isKeyframe && since(unit, last) >= data.seconds * 90_000);
	const taken = units.slice(Math.max(0, first)).map((unit) => ({ ...unit, data: unit.data.slice(0) }));
	(postMessage as (message: ClipUnits, transfer: ArrayBuffer[]) => void)({ ...format, units: taken }, taken.map((unit) => unit.data));
});
