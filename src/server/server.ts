/** The server: listens, and owns the sessions of everyone who connects. It closes what it made and the transport; engine and encoders stay their owner's. */
import { randomBytes } from 'node:crypto';
import { createServer, type Server as HttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { RawFrame } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Metrics } from '../base/metrics.js';
import type { Clock } from '../base/time.js';
import type { Engine } from '../engine/engine.js';
import type { Encoders } from '../media/encoder.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Transport } from '../transport/transport.js';
import { Admission } from './admission.js';
import type { Auth } from './auth.js';
import { createAddressOf } from './client-address.js';
import { ConnectionLimit } from './connection-limit.js';
import { createControl } from './control.js';
import { IceServers } from './ice-servers.js';
import type { MemoryBudget } from './memory-budget.js';
import { modelInfo } from './model-info.js';
import { createPublicationRoute } from './publication-route.js';
import { createRecordingRoute } from './recording-route.js';
import { createRoutes } from './routes.js';
import type { ServerConfig } from './server-config.js';
import { createServerMetrics } from './server-metrics.js';
import type { SessionParts } from './session-parts.js';
import { SessionRegistry } from './session-registry.js';
import { createWhep } from './whep.js';

export type ServerParts = {
	/** Of turbocast, for those who read metrics. */
	readonly version: string;
	readonly config: ServerConfig;
	readonly engine: Engine;
	readonly encoders: Encoders;
	readonly transport: Transport;
	readonly auth: Auth;
	readonly log: Log;
	readonly metrics: Metrics;
	readonly clock: Clock;
	/** Unsigned 32 bits, for seeds and first timestamps. Default: the system's randomness. */
	readonly randomUint32?: () => number;
	/** Of the streams of sessions; without it memory keeps nobody out. */
	readonly memory?: MemoryBudget;
	/** Sees every frame before it is encoded; must not keep or change the bytes. */
	readonly onFrame?: (frame: RawFrame) => void;
};

export type Server = {
	readonly address: { readonly host: string; readonly port: number; readonly url: string };
	/**
	 * A shutdown that lets people finish: from now on nobody new is let in (readiness says so first), and sessions that run are told
	 * how long they have. Resolves when the last has ended, or after `withinMs`; then call `close`.
	 */
	readonly drain: (withinMs: number) => Promise<void>;
	/** Ends every session with `draining`, then the transport and the listener. Idempotent. */
	readonly close: () => Promise<void>;
};

/** Time for a whole request to arrive; ours have small bodies or none. */
const REQUEST_TIMEOUT_MS = 10_000;

const systemUint32 = (): number => randomBytes(4).readUInt32LE();

const listen = (http: HttpServer, host: string, port: number): Promise<AddressInfo> =>
	new Promise((resolve, reject) => {
		http.once('error', (error: NodeJS.ErrnoException) => {
			switch (error.code) {
				case 'EADDRINUSE':
					return reject(new TurbocastError('port_in_use', `Another program listens on port ${port} of ${host}; choose another port with --port N (or server.port), or stop that program.`, { param: 'server.port', cause: error }));
				case 'EACCES':
					return reject(new TurbocastError('invalid_config', `This user may not listen on port ${port}; choose one above 1023 with --port N (or server.port).`, { param: 'server.port', cause: error }));
				case 'EADDRNOTAVAIL':
				case 'ENOTFOUND':
					return reject(new TurbocastError('invalid_config', `${host} is not an address of this machine; choose another with --host H (or server.host).`, { param: 'server.host', cause: error }));
				default:
					return reject(error);
			}
		});
		http.listen({ host, port }, () => resolve(http.address() as AddressInfo));
	});

const urlOf = (host: string, port: number): string => {
	const everywhere = host === '0.0.0.0' || host === '::' || host === '';
	const name = everywhere ? 'localhost' : host.includes(':') ? `[${host}]` : host;
	return `http://${name}:${port}/`;
};

/** Starts listening. Throws `port_in_use` or `invalid_config`. */
export const startServer = async (parts: ServerParts): Promise<Server> => {
	const { config, engine, encoders, transport, auth, log, clock, onFrame } = parts;
	auth.assertMayListen(config.host);
	const admission = new Admission({
		engine, clock, places: config.maxSessions, maxWaiting: config.maxWaiting, maxPerKey: config.maxSessionsPerKey,
		maxPerAddress: config.maxSessionsPerAddress, maxShare: config.maxEngineShare, memory: parts.memory,
		usual: { width: engine.model.width, height: engine.model.height, steps: config.defaultSteps === 0 ? engine.model.default_steps : config.defaultSteps },
	});
	const model = modelInfo(engine.model);
	const sessions = new SessionRegistry();
	const metrics = createServerMetrics(parts.metrics, { version: parts.version, engine, admission, transport, connections: () => control.connections(), sessionStates: () => control.sessionStates(), publicationStates: () => publications.states() });
	const sessionParts: SessionParts = {
		config, engine, encoders, transport, admission, auth, sessions, model, metrics, log, clock, onFrame,
		connections: new ConnectionLimit(config.maxConnections, config.maxConnectionsPerAddress),
		addressOf: createAddressOf(config.trustedProxies),
		iceServers: new IceServers(config.iceServers, config.turn),
		randomUint32: parts.randomUint32 ?? systemUint32,
	};
	const control = createControl(sessionParts);
	const whep = createWhep(sessionParts);
	const publications = createPublicationRoute(sessionParts);
	const http = createServer({ requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS }, createRoutes({ model, engine, admission, auth, sessions, whep, recordings: createRecordingRoute(sessionParts), publications, metrics: parts.metrics, log }));
	http.on('upgrade', control.upgrade);

	const drain = async (withinMs: number): Promise<void> => {
		const over = new AbortController();
		admission.drain();
		log.info({ running: admission.taken, withinMs }, 'Draining: nobody new is let in.');
		control.warnOfEnd(withinMs, over.signal);
		const late = clock.sleep(withinMs, over.signal).catch(() => undefined);
		await Promise.race([admission.empty(), late]);
		over.abort();
		log.info({ running: admission.taken }, 'Drained.');
	};

	const close = async (): Promise<void> => {
		admission.drain();
		const closed = new Promise<void>((resolve) => {
			http.close(() => resolve());
		});
		// Before the sessions, which end them too, but do not wait until the endpoints have been told.
		await publications.close();
		await control.close();
		await transport.close();
		http.closeAllConnections();
		await closed;
		metrics.close();
	};

	let address: AddressInfo;
	try {
		address = await listen(http, config.host, config.port);
	} catch (error) {
		await close();
		throw error;
	}
	http.on('error', (error) => log.error({ err: error }, 'The HTTP server failed.'));
	let closing: Promise<void> | undefined;
	return {
		address: { host: config.host, port: address.port, url: urlOf(config.host, address.port) },
		drain,
		close: () => (closing ??= close()),
	};
};
