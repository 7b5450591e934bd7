/** Cases of video over the control socket. */
import type { ServerMessages } from '../protocol/messages.js';
import type { Connection } from './connection.js';
import { casesOf, ensureRefused, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, quote } from './verdict.js';

/** Half a second at 16 frames a second. */
const SOME_PICTURES = 8;
const AFTER_CLOSE_MS = 1000;
/** A second at 30 frames a second. */
const PICTURES_TO_A_KEYFRAME = 30;
/** As docs/protocol.md has it, and what a busy server may be late by. */
const MOST_UNACKNOWLEDGED_MS = 600;
const TOLERANCE_MS = 250;
/** Nothing comes any more: longer than a chunk of half a second takes that is late. */
const SILENCE_MS = 1500;

const openVideo = async (subject: Subject): Promise<{ readonly connection: Connection; readonly codec: ServerMessages['video.opened']['codec'] }> => {
	const { connection } = await subject.start();
	const { codec } = await connection.answer('video.opened', connection.ask({ type: 'video.open', codecs: ['h264', 'vp8'] }));
	return { connection, codec };
};

export const SOCKET_VIDEO_CASES: readonly ServerCase[] = [
	...casesOf('Video over the control socket', {
		'video.open brings pictures from a key frame on, each followed by its record, until video.close': async (subject) => {
			const { connection, codec } = await openVideo(subject);
			let before: number | undefined;
			for (let count = 0; count < SOME_PICTURES; count += 1) {
				const { unit, meta } = await connection.nextPicture();
				ensure(count > 0 || unit.format !== undefined, 'the first picture is no key frame');
				ensure(unit.format === undefined || unit.format.codecString.startsWith(codec === 'h264' ? 'avc1.' : 'vp8'), `a key frame of ${codec} has the codec string ${quote(unit.format?.codecString)}`);
				ensureEqual(meta.keyframe, unit.format !== undefined, `keyframe of frame ${meta.frame_id}`);
				ensure(before === undefined || meta.frame_id > before, `frame ${meta.frame_id} came after frame ${before ?? ''}`);
				before = meta.frame_id;
				connection.send({ type: 'video.ack', frame_id: unit.frameId });
			}
			connection.send({ type: 'video.close' });
			await connection.assertAlive();
			connection.forget();
			const more = await connection.nextPicture(AFTER_CLOSE_MS).then(() => true, () => false);
			ensure(!more, 'pictures went on after video.close');
		},
		'video.keyframe brings a key frame': async (subject) => {
			const { connection } = await openVideo(subject);
			let isKeyframe = false;
			for (let count = 0; count < PICTURES_TO_A_KEYFRAME && !(isKeyframe && count > 1); count += 1) {
				const { unit } = await connection.nextPicture();
				isKeyframe = unit.format !== undefined;
				connection.send({ type: 'video.ack', frame_id: unit.frameId });
				if (count === 0) {
					connection.send({ type: 'video.keyframe' });
				}
			}
			ensure(isKeyframe, `no key frame was among the ${PICTURES_TO_A_KEYFRAME} pictures after video.keyframe`);
		},
		'while pictures are not acknowledged for 600 ms no others are sent, and they go on once they are': async (subject) => {
			const { connection } = await openVideo(subject);
			const first = await connection.nextPicture();
			connection.send({ type: 'video.ack', frame_id: first.unit.frameId });
			// Sent before the acknowledgement was there, perhaps.
			const unheard = [await connection.nextPicture()];
			for (;;) {
				const next = await connection.nextPicture(SILENCE_MS).catch(() => undefined);
				if (next === undefined) {
					break;
				}
				unheard.push(next);
				const lateMs = next.meta.t_sent_ms - (unheard[0] ?? next).meta.t_sent_ms;
				ensure(lateMs <= MOST_UNACKNOWLEDGED_MS + TOLERANCE_MS, `frame ${next.meta.frame_id} was sent ${Math.round(lateMs)} ms after one that nobody had acknowledged`);
			}
			const last = unheard.at(-1) ?? first;
			connection.send({ type: 'video.ack', frame_id: last.unit.frameId });
			const { meta } = await connection.nextPicture();
			ensure(meta.frame_id > last.meta.frame_id, `frame ${meta.frame_id} came after frame ${last.meta.frame_id}`);
		},
		'a codec that there is none of is refused': async (subject) => {
			const { connection } = await subject.open();
			await ensureRefused(connection, { type: 'video.open', codecs: ['of_tomorrow'] }, 'invalid_request');
		},
	}),
];
