/**
 * What can stand between a person and the picture: one table, read by `turbocast doctor` and by the panel of the page. Each has the hop of the way at
 * which it fails, one sentence, and what to do. `{name}` is filled with what was found.
 */

/** In the order in which they are gone through. */
export const HOPS = ['model', 'encoder', 'ports', 'server', 'admission', 'clock', 'codec', 'turn', 'media', 'picture'] as const;
export type Hop = (typeof HOPS)[number];

type Diagnosis = { readonly hop: Hop; readonly says: string; readonly fix: string };

export const DIAGNOSES = {
	model_unusable: { hop: 'model', says: 'The engine cannot run the model: {why}', fix: '`turbocast models` lists what is installed; name one in engine.model, or run with --device cpu.' },
	encoder_missing: { hop: 'encoder', says: 'No video encoder works here: {why}', fix: 'Run npm install with optional packages (node-av), or name an ffmpeg with libx264 in media.ffmpeg_path, and leave media.encoder at auto.' },
	port_taken: { hop: 'ports', says: 'TCP port {port} of {host} cannot be listened on ({why}).', fix: 'If turbocast runs there, ask it: turbocast doctor http://{host}:{port}; otherwise choose another server.port.' },
	udp_ports_taken: { hop: 'ports', says: 'None of the UDP ports {from} to {to} is free.', fix: 'Choose another range (media.udp_port_min, media.udp_port_max), or 0 for any.' },
	server_unreached: { hop: 'server', says: 'The server at {url} was not reached: {why}.', fix: 'Check the address, that `turbocast serve` runs there, that server.host is not 127.0.0.1 when you come from another machine, and that the TCP port is open.' },
	server_other: { hop: 'server', says: 'What answers at {url} is not turbocast, or a proxy that does not pass it on: {why}.', fix: 'Check address and port; a proxy must pass /healthz, /v1 and WebSocket upgrades on.' },
	server_ill: { hop: 'server', says: 'The server is there and cannot generate: {why}', fix: 'Read its log and start it again.' },
	upgrade_blocked: { hop: 'admission', says: 'The WebSocket at {url} does not open: {why}.', fix: 'A proxy in between must pass `Upgrade: websocket` on, and not close idle connections within a minute.' },
	origin_refused: { hop: 'admission', says: 'The server lets no page of {origin} in.', fix: 'Add {origin} to server.allowed_origins.' },
	key_refused: { hop: 'admission', says: 'The server refused the key: {why}', fix: 'Give a valid one (--token, or the field of the page); `turbocast keys create` makes server keys, POST /v1/realtime/client_secrets those for pages.' },
	not_admitted: { hop: 'admission', says: 'The server lets nobody in now: {why}', fix: 'Wait, or raise limits.max_connections and limits.max_sessions.' },
	clock_skew: { hop: 'clock', says: 'The clock of the server and the one here are {seconds} seconds apart.', fix: 'Turn on time synchronisation (NTP) on whichever is wrong: client secrets, TURN passwords and certificates expire by it.' },
	codec_missing: { hop: 'codec', says: 'No codec is left that both sides have: {why}', fix: 'Use a client that decodes H.264 constrained baseline (packetization-mode 1) or VP8, and nothing in between that takes them out of the offer.' },
	turn_missing: { hop: 'turn', says: 'No TURN server is configured, so that nothing relays for networks without UDP.', fix: 'Run coturn with use-auth-secret on port 443 and set media.turn_urls and media.turn_secret; until then such clients get the video over the WebSocket.' },
	turn_unreached: { hop: 'turn', says: 'The TURN server {url} does not answer.', fix: 'Check that it runs, its port and transport in media.turn_urls, and the firewall; turns: on TCP 443 passes most.' },
	turn_refused: { hop: 'turn', says: 'The TURN server {url} refuses our credentials ({why}).', fix: 'media.turn_secret must be its static-auth-secret, and the clocks of both must agree: the user name is a time of expiry.' },
	wrong_address: { hop: 'media', says: 'The server tells clients to send video to {announced}, from where nothing comes back; it was itself reached at {reached}.', fix: 'Set media.announce_addresses to the address at which clients reach it (behind NAT or in a container: the public one), and open its UDP ports there.' },
	udp_blocked: { hop: 'media', says: 'UDP does not come through between here and {announced}.', fix: 'Open UDP from clients to the server (media.udp_port_min to media.udp_port_max) in the firewalls between, or configure TURN over TCP (media.turn_urls).' },
	announced_unreached: { hop: 'media', says: 'The advertised address {announced} was not reached by UDP from this machine.', fix: 'Behind a router that does not lead back inside this is normal: run turbocast doctor URL from outside. Otherwise correct media.announce_addresses.' },
	no_webrtc: { hop: 'media', says: 'WebRTC is missing here, or turned off.', fix: 'Use another browser, or its setting for WebRTC; until then the video comes over the WebSocket.' },
	picture_missing: { hop: 'picture', says: 'The connection is up and no picture came: {why}', fix: 'Read the log of the server: engine and encoder say there why they stopped.' },
} as const satisfies { readonly [code: string]: Diagnosis };

export type DiagnosisCode = keyof typeof DIAGNOSES;

/** `doubtful`: the picture comes all the same, or comes by a worse way. */
export const VERDICTS_OF_HOPS = ['good', 'doubtful', 'broken'] as const;
export type HopVerdict = (typeof VERDICTS_OF_HOPS)[number];

export type Finding = {
	readonly hop: Hop;
	readonly verdict: HopVerdict;
	readonly sentence: string;
	/** Of findings that are not good. */
	readonly diagnosis?: DiagnosisCode;
	readonly fix?: string;
};

export type Facts = { readonly [name: string]: string | number };

const fill = (template: string, facts: Facts): string => template.replaceAll(/\{(\w+)\}/gu, (_all, name: string) => {
	const fact = facts[name];
	if (fact === undefined) {
		throw new RangeError(`The diagnosis needs to know "${name}".`);
	}
	return String(fact);
});

export const wrong = (diagnosis: DiagnosisCode, facts: Facts = {}, verdict: Exclude<HopVerdict, 'good'> = 'broken'): Finding => {
	const { hop, says, fix } = DIAGNOSES[diagnosis];
	return { hop, verdict, diagnosis, sentence: fill(says, facts), fix: fill(fix, facts) };
};

export const fine = (hop: Hop, sentence: string): Finding => ({ hop, verdict: 'good', sentence });

/** Of one try to have a TURN server relay. */
export type TurnOutcome = { readonly kind: 'relays' | 'silent' } | { readonly kind: 'refuses'; readonly why: string };

type TurnServers = readonly { readonly urls: readonly string[]; readonly username?: string | undefined; readonly credential?: string | undefined }[];

/** One finding for each address of a TURN server; that there is none, when there is none. */
export const judgeTurn = (servers: TurnServers, attempt: (url: string, username: string, credential: string) => Promise<TurnOutcome>): Promise<Finding[]> => {
	const addresses = servers.flatMap(({ urls, username = '', credential = '' }) => urls.filter((url) => url.startsWith('turn')).map((url) => ({ url, username, credential })));
	return addresses.length === 0 ? Promise.resolve([wrong('turn_missing', {}, 'doubtful')]) : Promise.all(addresses.map(async ({ url, username, credential }) => {
		const outcome = await attempt(url, username, credential);
		switch (outcome.kind) {
			case 'relays':
				return fine('turn', `The TURN server ${url} relays.`);
			case 'refuses':
				return wrong('turn_refused', { url, why: outcome.why });
			case 'silent':
				return wrong('turn_unreached', { url });
		}
	}));
};

/** Seconds by which clocks may differ: passwords and secrets live for minutes at least. */
export const MOST_SKEW_SECONDS = 30;

/** `skewMs`: the server's clock minus the one here, by an HTTP date, which counts whole seconds. */
export const judgeClock = (skewMs: number, uncertaintyMs: number): Finding => {
	const seconds = Math.round(Math.abs(skewMs) / 1000);
	return Math.abs(skewMs) - uncertaintyMs > MOST_SKEW_SECONDS * 1000
		? wrong('clock_skew', { seconds }, 'doubtful')
		: fine('clock', seconds <= 1 ? 'The clocks agree to a second.' : `The clocks differ by ${seconds} seconds, which does no harm.`);
};

const isLoopback = (address: string): boolean => /^(?:127\.|::1$|localhost$)/u.test(address);
/** RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 section 2.5.6. */
const isPrivate = (address: string): boolean => isLoopback(address) || /^(?:10\.|192\.168\.|172\.(?:1[6-9]|2\d|3[01])\.|100\.(?:6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|169\.254\.|f[cd][0-9a-f]{2}:|fe[89ab][0-9a-f]:)/iu.test(address);
const isAddress = (host: string): boolean => /^[\d.]+$|:/u.test(host);

export type MediaFacts = {
	/** The pair of candidates that was chosen, in words; `undefined` when none was. */
	readonly pair: string | undefined;
	/** Where the page or the control socket was reached: an address where it is known, else a name. */
	readonly reached: string;
	/** Of the candidates of the server. */
	readonly announced: readonly string[];
	/** Addresses of this machine, as far as they are known. */
	readonly own: readonly string[];
};

/** Whether clients that reached the server at `reached` can be expected to reach this address. */
const isPlausible = (address: string, { reached, own }: MediaFacts): boolean => {
	if (address === reached || own.includes(address)) {
		return true;
	}
	if (isAddress(reached) || isLoopback(reached)) {
		// On one machine whatever is not its own lies behind a port that was mapped, as those of containers are; a browser may not know its own.
		return isLoopback(reached) && own.length === 0 && isPrivate(address);
	}
	return !isPrivate(address);
};

/** Names what is wrong when nothing came through: the address that clients are told, or the way of UDP. */
export const judgeMedia = (facts: MediaFacts): Finding => {
	const { pair, reached, announced } = facts;
	if (pair !== undefined) {
		return fine('media', `WebRTC is connected: ${pair}.`);
	}
	const list = announced.length === 0 ? 'no address' : announced.join(', ');
	return announced.some((address) => isPlausible(address, facts)) ? wrong('udp_blocked', { announced: list }) : wrong('wrong_address', { announced: list, reached });
};
