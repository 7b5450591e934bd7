/**
 * The composition root: builds every part from a `Config` and owns them. Nothing else constructs an engine, an encoder
 * process or a listener for the service. `close()` ends them in the order of docs/closing.md.
 */
import type { RawFrame } from './base/frame.js';
import { createLog, type Log } from './base/log.js';
import { Metrics } from './base/metrics.js';
import { systemClock } from './base/time.js';
import { chosenDevice, engineOptions } from './cli/engine-options.js';
import type { Config } from './config.js';
import { freeCardBytes } from './engine/card-memory.js';
import { EngineHost } from './engine/engine-host.js';
import type { Engine } from './engine/engine.js';
import { deviceOf } from './engine/profile.js';
import { streamBytes } from './engine/stream-memory.js';
import { startEncoders } from './media/encoder-host.js';
import { Auth } from './server/auth.js';
import { keysFilePath } from './server/key-file.js';
import { MemoryBudget } from './server/memory-budget.js';
import { startServer, type Server } from './server/server.js';
import { createWebRtcTransport } from './transport/webrtc.js';
import { TURBOCAST_VERSION } from './version.js';

export type App = {
	readonly address: Server['address'];
	readonly engine: Engine;
	/** Resolves when a prompt would start at once; rejects when the engine cannot be started at all. */
	readonly ready: (signal?: AbortSignal) => Promise<void>;
	/** Lets sessions finish, and nobody new in, for at most this long; then call `close`. */
	readonly drain: (withinMs: number) => Promise<void>;
	/** Ends every process and socket, and every session that still runs; idempotent. */
	readonly close: () => Promise<void>;
};

export type AppOptions = {
	readonly config: Config;
	readonly log?: Log;
	/** Sees every frame before it is encoded: for tests and recorders; must not keep or change the bytes. */
	readonly onFrame?: (frame: RawFrame) => void;
};

/** What streams may take of the memory where the engine keeps them, and of this machine's, which has a copy of each. */
const memoryBudget = (engine: EngineHost, configuredMb: number): MemoryBudget => {
	const isOnCard = deviceOf(engine.profile) !== 'cpu';
	let freeOnCard: number | undefined;
	if (isOnCard) {
		// Weights and all are there by then. Why it never was ready is told elsewhere.
		engine.ready().then(async () => {
			freeOnCard = await freeCardBytes();
		}).catch(() => undefined);
	}
	return new MemoryBudget({
		bytesOf: (size) => streamBytes(engine.model, size, engine.profile),
		configuredBytes: configuredMb === 0 ? undefined : configuredMb * 1e6,
		place: isOnCard ? 'card' : 'host',
		freeBytes: { host: () => process.availableMemory(), card: () => freeOnCard },
	});
};

/** Starts the whole service. Throws `invalid_config`, `port_in_use`, `model_not_found`, `model_invalid`, `weights_corrupt`. */
export const startApp = async ({ config, log = createLog({ level: config.log.level, personalData: config.log.personal_data }), onFrame }: AppOptions): Promise<App> => {
	const clock = systemClock;
	const metrics = new Metrics();
	const owned: { close: () => Promise<void> }[] = [];
	const closeAll = async (): Promise<void> => {
		for (const part of owned.splice(0).reverse()) {
			await part.close();
		}
	};
	try {
		const auth = await Auth.open({
			keys: config.auth.keys, keysFile: keysFilePath(config.auth.keys_file), secretsPerMinute: config.limits.secrets_per_minute,
			log: log.child({ part: 'auth' }), clock,
		});
		// Said before anything is started; the server holds to it too.
		auth.assertMayListen(config.server.host);
		// The engine loads in its own process while the rest starts.
		const engine = await EngineHost.start({
			...engineOptions(config, await chosenDevice(config, log.child({ part: 'engine' }))),
			standby: config.engine.standby,
			loadsAhead: true,
			log: log.child({ part: 'engine' }),
			clock,
		});
		owned.push(engine);
		const encoders = await startEncoders({ implementation: config.media.encoder, ffmpegPath: config.media.ffmpeg_path, size: { width: engine.model.width, height: engine.model.height }, log: log.child({ part: 'encoder' }), clock });
		owned.push(encoders);
		const transport = createWebRtcTransport({
			portRange: config.media.udp_port_min === 0 ? undefined : [config.media.udp_port_min, config.media.udp_port_max],
			announceAddresses: config.media.announce_addresses,
			iceServers: config.media.ice_servers,
			segmentation: config.media.udp_segmentation,
			fps: engine.model.fps,
			mostBps: config.media.bitrate_bps,
			log: log.child({ part: 'transport' }),
			clock,
		});
		const server = await startServer({
			config: {
				host: config.server.host,
				port: config.server.port,
				trustedProxies: config.server.trusted_proxies,
				allowedOrigins: config.server.allowed_origins,
				defaultSteps: config.generation.steps === 0 ? engine.model.default_steps : config.generation.steps,
				maxLeadMs: config.generation.max_lead_ms,
				bitrateBps: config.media.bitrate_bps,
				bitrateFloorBps: config.media.bitrate_floor_bps,
				iceServers: config.media.ice_servers,
				turn: config.media.turn_urls.length === 0 ? undefined : { urls: config.media.turn_urls, secret: config.media.turn_secret, credentialSeconds: config.media.turn_credential_seconds },
				maxSessions: config.limits.max_sessions,
				maxWaiting: config.limits.max_waiting,
				maxSessionsPerKey: config.limits.max_sessions_per_key,
				maxSessionsPerAddress: config.limits.max_sessions_per_address,
				maxEngineShare: config.limits.max_engine_share,
				maxViewers: config.limits.max_viewers,
				maxConnectionsPerAddress: config.limits.max_connections_per_address,
				maxConnections: config.limits.max_connections,
				sessionMaxMs: config.limits.session_max_ms,
				idleTimeoutMs: config.limits.idle_timeout_ms,
				startTimeoutMs: config.limits.start_timeout_ms,
				sessionsFolder: config.log.sessions_folder === '' ? undefined : config.log.sessions_folder,
				recording: config.recording.minutes === 0 ? undefined : { mostMs: config.recording.minutes * 60_000, mostBytes: config.recording.max_bytes },
				resumeGraceMs: config.limits.resume_grace_ms,
				whepOffersPerMinute: config.limits.whep_offers_per_minute,
				publish: { allowedOrigins: config.publish.allowed_origins, maxPerSession: config.publish.max_per_session },
				messagesPerSecond: config.limits.messages_per_second,
				badMessagesPerMinute: config.limits.bad_messages_per_minute,
			},
			memory: memoryBudget(engine, config.engine.memory_mb),
			version: TURBOCAST_VERSION, engine, encoders, transport, auth, log: log.child({ part: 'server' }), metrics, clock,
			...(onFrame === undefined ? {} : { onFrame }),
		});
		owned.push(server);
		let closing: Promise<void> | undefined;
		return {
			address: server.address,
			engine,
			ready: (signal) => engine.ready(signal),
			drain: (withinMs) => server.drain(withinMs),
			close: () => (closing ??= closeAll()),
		};
	} catch (error) {
		await closeAll();
		throw error;
	}
};
