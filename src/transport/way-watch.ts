/**
 * Notices that a way is gone: nothing comes over it any more, or the address that it begins at has left this machine. The library notices the first after
 * thirty seconds (RFC 7675 section 5.1), by then for good, and the second never.
 */
import type { RTCIceTransport } from 'werift';
import type { Clock } from '../base/time.js';

/** Checks of consent are answered every four to six seconds at least, reports come more often. */
export const DEFAULT_SILENCE_MS = 7500;
const LOOK_INTERVAL_MS = 1000;

/** The fields of the library's chosen pair that are private but needed. */
type Pair = {
	readonly id: string;
	readonly protocol: { readonly localIp?: string };
	readonly requestsReceived: number;
	readonly responsesReceived: number;
	readonly packetsReceived: number;
};

export type WayWatchOptions = {
	readonly clock: Clock;
	/** Without a word for so long, a way counts as gone. */
	readonly silenceMs: number;
	/** Of this machine, at present. */
	readonly ownAddresses: () => readonly string[];
	/** Looks end with it. */
	readonly signal: AbortSignal;
	readonly onLost: (reason: string) => void;
	/** Something came over a way that counted as gone. */
	readonly onFound: () => void;
};

/** Looks once a second until the signal aborts. */
export const watchWay = (transport: RTCIceTransport, { clock, silenceMs, ownAddresses, signal, onLost, onFound }: WayWatchOptions): void => {
	let heard = '';
	let heardAtMs = clock.nowMs();
	/** Of the way, while this machine has it; announced addresses may be those of a NAT. */
	let address: string | undefined;
	let isLost = false;

	const look = (): void => {
		const pair = (transport.connection as unknown as { readonly nominated?: Pair }).nominated;
		const nowMs = clock.nowMs();
		// Another pair, or none yet, is a way of its own.
		const now = pair === undefined ? '' : `${pair.id} ${pair.requestsReceived + pair.responsesReceived + pair.packetsReceived}`;
		const own = ownAddresses();
		const { localIp } = pair?.protocol ?? {};
		const hasLeft = address !== undefined && address === localIp && !own.includes(address);
		address = hasLeft || (localIp !== undefined && own.includes(localIp)) ? localIp : undefined;
		if (now !== heard || now === '') {
			heard = now;
			heardAtMs = nowMs;
		}
		const reason = hasLeft ? `this machine no longer has the address ${localIp ?? ''}` : nowMs - heardAtMs >= silenceMs ? `nothing came for ${silenceMs / 1000} s` : undefined;
		if (reason !== undefined && !isLost) {
			isLost = true;
			onLost(reason);
		} else if (reason === undefined && isLost) {
			isLost = false;
			onFound();
		}
	};

	void (async () => {
		for (;;) {
			await clock.sleep(LOOK_INTERVAL_MS, signal);
			look();
		}
	})().catch(() => undefined);
};
