/** What is told of many streams of an own model at once. */

export type SessionsTry = {
	readonly sessions: number;
	/** Of the chunks that were due, those that were not there in time. */
	readonly lateShare: number;
	/** From being asked for to being whole, of those that came. */
	readonly p95Ms: number;
};

export type SessionsReport = {
	readonly fps: number;
	readonly steps: number;
	/** What a chunk plays for. */
	readonly periodMs: number;
	/** Whether the forwards of streams were replayed. */
	readonly isRecorded: boolean;
	/** The most that were kept in time, if any were; and the fewest that were not, if any were not. */
	readonly kept?: SessionsTry | undefined;
	readonly missed?: SessionsTry | undefined;
};
