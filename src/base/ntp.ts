/** Time as RTCP and RTP header extensions have it: seconds since 1900 (RFC 5905 section 6). */

/** From the Unix epoch back to that of NTP. */
const EPOCH_MS = 2_208_988_800_000;

/** A moment of the monotonic clock `performance.now()` as NTP time, milliseconds with fraction. */
export const ntpMs = (monotonicMs: number): number => performance.timeOrigin + monotonicMs + EPOCH_MS;

/** 32 bits of seconds, 32 of fraction. */
export const ntpTimestamp = (ms: number): bigint => {
	const seconds = Math.floor(ms / 1000);
	return (BigInt(seconds) << 32n) | BigInt(Math.floor(((ms - seconds * 1000) / 1000) * 2 ** 32));
};

/** abs-send-time: 6 bits of seconds, 18 of fraction. */
export const absSendTime = (ms: number): number => Math.floor((ms % 64_000) * (2 ** 18 / 1000)) & 0xffffff;
