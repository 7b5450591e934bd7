/** Cases of the telemetry channel, over a video connection of their own. */
import { FRAME_META, type FrameMeta } from '../protocol/messages.js';
import { Probe } from '../transport/probe.js';
import type { Connection } from './connection.js';
import { Mailbox } from './mailbox.js';
import { casesOf, type ServerCase, type Subject } from './server-case.js';
import { ensure, ensureEqual, quote, skip, Violation } from './verdict.js';

/** A second at 16 frames a second. */
const SOME_RECORDS = 16;
/** Records are sent once and without order: one that is lost is no mistake, all of them would be. */
const MOST_CHANGES = 4;
/** Rounding of times to a tenth of a millisecond. */
const ROUNDING_MS = 0.2;

type Watched = {
	readonly records: Mailbox<FrameMeta>;
	/** RTP timestamps of the packets that came. */
	readonly pictures: ReadonlySet<number>;
	/** Throws the first thing that is not a record. */
	readonly assertRecords: () => void;
};

/** A session that is watched over WebRTC, while `look` looks. */
const watch = async (subject: Subject, look: (connection: Connection, watched: Watched) => Promise<void>): Promise<void> => {
	const { connection, created } = await subject.open();
	const records = new Mailbox<FrameMeta>();
	const pictures = new Set<number>();
	let wrong: string | undefined;
	await using probe = await Probe.open(created.ice_servers, {
		onPacket: (rtpTimestamp) => pictures.add(rtpTimestamp),
		onRecord: (text) => {
			try {
				records.put(FRAME_META.parse(JSON.parse(text)));
			} catch (error) {
				wrong ??= `${quote(text)} on the telemetry channel is no record: ${error instanceof Error ? error.message : String(error)}`;
			}
		},
	});
	const { sdp } = await connection.answer('webrtc.answer', connection.ask({ type: 'webrtc.offer', sdp: probe.offer }));
	ensure(/^m=application [1-9]/mu.test(sdp), 'the answer refuses the data channel');
	await probe.answer(sdp);
	if ((await probe.connected(subject.patienceMs)) === undefined) {
		skip('no video connection to this server comes up from here (turbocast doctor says why)');
	}
	await subject.untilReady(connection, connection.ask({ type: 'session.start', prompt: 'a cat jumps' }));
	const assertRecords = (): void => ensure(wrong === undefined, wrong ?? '');
	try {
		await look(connection, { records, pictures, assertRecords });
	} catch (error) {
		// What came instead of a record is the reason of what did not come.
		assertRecords();
		throw error;
	}
};

const next = (subject: Subject, { records }: Watched, where: (record: FrameMeta) => boolean = () => true): Promise<FrameMeta> => records.first(where, 'a record on the telemetry channel', subject.patienceMs);

export const TELEMETRY_CASES: readonly ServerCase[] = casesOf('The telemetry channel', {
	'each frame has one record, with the time of its picture, and moments in their order on the clock of pong': (subject) => watch(subject, async (connection, watched) => {
		const records: FrameMeta[] = [];
		for (let count = 0; count < SOME_RECORDS; count += 1) {
			records.push(await next(subject, watched));
		}
		watched.assertRecords();
		const { server_ms: nowMs } = await connection.answer('pong', connection.ask({ type: 'ping' }));
		const inOrder = records.toSorted((a, b) => a.frame_id - b.frame_id);
		ensureEqual(new Set(inOrder.map(({ frame_id: id }) => id)).size, SOME_RECORDS, 'the number of frames in as many records');
		for (const [index, record] of inOrder.entries()) {
			const { frame_id: id, t_generated_ms: generated, t_taken_ms: taken, t_encoded_ms: encoded, t_sent_ms: sent } = record;
			const times = [generated, taken, encoded, sent, nowMs];
			ensure(times.every((time, at) => time + ROUNDING_MS >= (times[at - 1] ?? 0)), `generated, taken, encoded and sent of frame ${id}, and pong after it, are ${quote(times)}`);
			const before = inOrder[index - 1];
			ensure(before === undefined || (record.media_ms > before.media_ms && record.chunk_index >= before.chunk_index), `media_ms or chunk_index of frame ${id} went back`);
		}
		const joined = inOrder.filter(({ rtp_timestamp: time }) => watched.pictures.has(time)).length;
		ensure(joined > SOME_RECORDS / 2, `of ${SOME_RECORDS} records ${joined} have the rtp_timestamp of a picture that came`);
	}),
	'the first frame that carries a change names it, with the frame and the time of event.applied': (subject) => watch(subject, async (connection, watched) => {
		// The channel is open.
		await next(subject, watched);
		for (let count = 1; count <= MOST_CHANGES; count += 1) {
			const eventId = connection.ask({ type: 'session.update', prompt: `a dog, ${count}` });
			const applied = await connection.next('event.applied', ({ event_id: id }) => id === eventId);
			// A later record shows whether that of the change is under way still.
			const carries = ({ frame_id: id, applied_event_ids: ids }: FrameMeta): boolean => ids.includes(eventId) || id > applied.frame_id;
			const record = await next(subject, watched, carries);
			const named = record.applied_event_ids.includes(eventId) ? record : await next(subject, watched, ({ applied_event_ids: ids }) => ids.includes(eventId)).catch(() => undefined);
			watched.assertRecords();
			if (named !== undefined) {
				ensureEqual([named.frame_id, named.rtp_timestamp, named.chunk_index], [applied.frame_id, applied.rtp_timestamp, applied.chunk_index], 'frame_id, rtp_timestamp and chunk_index of the record');
				return;
			}
		}
		throw new Violation(`no record named any of ${MOST_CHANGES} changes in applied_event_ids`);
	}),
});
