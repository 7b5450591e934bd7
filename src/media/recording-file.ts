/** A recording as an MP4 file: the access units as they are, by mediabunny. Its door on the server. */
import { setImmediate } from 'node:timers/promises';
import { BufferTarget, EncodedPacket, EncodedVideoPacketSource, Mp4OutputFormat, Output } from 'mediabunny';
import type { RecordedPart } from './recording.js';

const TICKS_PER_SECOND = 90_000;
/** A pause of the session, or of its viewers, is one of this length in the file. */
const LONGEST_GAP_S = 1;
/** Packets written before others have their turn: frames of sessions are due every few milliseconds. */
const PACKETS_A_TURN = 32;
const CODECS = { h264: 'avc', vp8: 'vp8' } as const;

export const toMp4 = async ({ codec, format, units }: RecordedPart): Promise<Uint8Array> => {
	const target = new BufferTarget();
	const output = new Output({ format: new Mp4OutputFormat({ fastStart: 'in-memory' }), target });
	const source = new EncodedVideoPacketSource(CODECS[codec]);
	output.addVideoTrack(source);
	await output.start();
	let atS = 0;
	let durationS = 1 / 16;
	for (const [index, unit] of units.entries()) {
		const next = units[index + 1];
		// The last one is shown as long as the one before.
		durationS = next === undefined ? durationS : Math.min(LONGEST_GAP_S, ((next.rtpTimestamp - unit.rtpTimestamp) >>> 0) / TICKS_PER_SECOND);
		await source.add(new EncodedPacket(unit.data, unit.format === undefined ? 'delta' : 'key', atS, durationS), {
			decoderConfig: { codec: format.codecString, codedWidth: format.width, codedHeight: format.height },
		});
		atS += durationS;
		if (index % PACKETS_A_TURN === PACKETS_A_TURN - 1) {
			await setImmediate();
		}
	}
	await output.finalize();
	return new Uint8Array(target.buffer ?? new ArrayBuffer(0));
};
