/** Bit rate and loss of the video connection, from its statistics (webrtc-stats, RTCInboundRtpStreamStats). */

export type NetworkFigures = { readonly bitrateBps: number; /** Share of packets that never came, 0 to 1. */ readonly loss: number };

type Counts = { readonly atMs: number; readonly bytes: number; readonly received: number; readonly lost: number };

const countsOf = (report: RTCStatsReport): Counts | undefined => {
	for (const entry of report.values() as IterableIterator<RTCInboundRtpStreamStats>) {
		if (entry.type === 'inbound-rtp' && entry.kind === 'video') {
			return { atMs: entry.timestamp, bytes: entry.bytesReceived ?? 0, received: entry.packetsReceived ?? 0, lost: entry.packetsLost ?? 0 };
		}
	}
	return undefined;
};

/** Gives what happened since the report before; `undefined` for the first, and after a new connection. */
export const networkMeter = () => {
	let last: Counts | undefined;
	return (report: RTCStatsReport): NetworkFigures | undefined => {
		const now = countsOf(report);
		const before = last;
		last = now;
		if (now === undefined || before === undefined || now.atMs <= before.atMs || now.bytes < before.bytes) {
			return undefined;
		}
		const lost = Math.max(0, now.lost - before.lost);
		const total = now.received - before.received + lost;
		return { bitrateBps: ((now.bytes - before.bytes) * 8000) / (now.atMs - before.atMs), loss: total === 0 ? 0 : lost / total };
	};
};
