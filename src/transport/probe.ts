/** A client that wants to know what comes, and shows none of it: offers like a browser, connects, counts packets and hands over records. */
import { RTCPeerConnection, RTCRtpCodecParameters, useSdesMid, useTransportWideCC } from 'werift';
import { VIDEO_CODECS, type VideoCodec } from '../base/frame.js';
import { TurbocastError } from '../protocol/errors.js';
import { TELEMETRY_LABEL } from '../protocol/limits.js';

export type ProbeServers = readonly { readonly urls: readonly string[]; readonly username?: string | undefined; readonly credential?: string | undefined }[];

const CODECS: { readonly [codec in VideoCodec]: RTCRtpCodecParameters } = {
	h264: new RTCRtpCodecParameters({ mimeType: 'video/H264', clockRate: 90_000, payloadType: 102, parameters: 'level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f' }),
	vp8: new RTCRtpCodecParameters({ mimeType: 'video/VP8', clockRate: 90_000, payloadType: 96 }),
};
/** A STUN server that is silent must not delay the offer by more than this. */
const STUN_GATHER_TIMEOUT_SECONDS = 1;

/** Of the candidates in a session description, each once. */
export const candidateAddresses = (sdp: string): string[] =>
	[...new Set([...sdp.matchAll(/^a=candidate:\S+ \d+ udp \d+ (\S+) \d+ typ/gimu)].map((match) => match[1] ?? ''))];

type Candidate = { readonly type: string; readonly host: string; readonly port: number };
/** The library keeps the chosen pair inside. */
type Inside = { readonly nominated?: { readonly localCandidate: Candidate; readonly remoteCandidate: Candidate } };

const words = ({ type, host, port }: Candidate): string => `${type} ${host}:${port}`;

export type ProbeEvents = {
	/** A packet of media came, with this RTP timestamp. */
	readonly onPacket?: (rtpTimestamp: number) => void;
	/** On the telemetry channel. */
	readonly onRecord?: (text: string) => void;
};

export class Probe implements AsyncDisposable {
	readonly offer: string;
	readonly #connection: RTCPeerConnection;
	#packets = 0;
	readonly #changes = new Set<() => void>();

	private constructor(connection: RTCPeerConnection, offer: string, { onPacket }: ProbeEvents) {
		this.#connection = connection;
		this.offer = offer;
		connection.connectionStateChange.subscribe(() => this.#changed());
		connection.onTrack.subscribe((track) => track.onReceiveRtp.subscribe(({ header }) => {
			this.#packets += 1;
			onPacket?.(header.timestamp);
			this.#changed();
		}));
	}

	/** With its candidates gathered. Throws `transport_failed`. */
	static async open(iceServers: ProbeServers, events: ProbeEvents = {}): Promise<Probe> {
		const connection = new RTCPeerConnection({
			codecs: { audio: [], video: VIDEO_CODECS.map((codec) => CODECS[codec]) },
			headerExtensions: { audio: [], video: [useSdesMid(), useTransportWideCC()] },
			iceServers: iceServers.flatMap(({ urls, username, credential }) =>
				urls.map((url) => ({ urls: url, ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }) }))),
			iceStunGatherTimeout: STUN_GATHER_TIMEOUT_SECONDS,
			// The server may be this machine.
			iceAdditionalHostAddresses: ['127.0.0.1'],
			bundlePolicy: 'max-bundle',
		});
		connection.addTransceiver('video', { direction: 'recvonly' });
		const telemetry = connection.createDataChannel(TELEMETRY_LABEL, { ordered: false, maxRetransmits: 0 });
		telemetry.onMessage.subscribe((record) => events.onRecord?.(record.toString()));
		await connection.setLocalDescription(await connection.createOffer());
		const sdp = connection.localDescription?.sdp;
		if (sdp === undefined) {
			throw new TurbocastError('transport_failed', 'No offer for a video connection could be made.');
		}
		return new Probe(connection, sdp, events);
	}

	async answer(sdp: string): Promise<void> {
		await this.#connection.setRemoteDescription({ type: 'answer', sdp });
	}

	/** The chosen pair in words, once it is connected; `undefined` when that does not come in time. */
	async connected(withinMs: number): Promise<string | undefined> {
		const isUp = await this.#until(() => this.#connection.connectionState === 'connected', withinMs);
		const pair = (this.#connection.iceTransports[0]?.connection as Inside | undefined)?.nominated;
		return !isUp ? undefined : pair === undefined ? 'by a pair that is not known' : `${words(pair.localCandidate)} to ${words(pair.remoteCandidate)}`;
	}

	/** Whether media comes. */
	hasPackets(withinMs: number): Promise<boolean> {
		return this.#until(() => this.#packets > 0, withinMs);
	}

	async [Symbol.asyncDispose](): Promise<void> {
		await this.#connection.close();
	}

	#until(holds: () => boolean, withinMs: number): Promise<boolean> {
		return new Promise((resolve) => {
			const end = (result: boolean): void => {
				clearTimeout(timer);
				this.#changes.delete(look);
				resolve(result);
			};
			const look = (): void => {
				if (holds()) {
					end(true);
				}
			};
			const timer = setTimeout(() => end(holds()), withinMs);
			this.#changes.add(look);
			look();
		});
	}

	#changed(): void {
		this.#changes.forEach((change) => change());
	}
}
