/** A server on a free port with a real engine and a real encoder; only the network to the viewer is in memory, unless a test brings its own. */
import type { RawFrame } from '../../src/base/frame.js';
import { silentLog } from '../../src/base/log.js';
import { Metrics } from '../../src/base/metrics.js';
import { systemClock } from '../../src/base/time.js';
import { EngineHost } from '../../src/engine/engine-host.js';
import type { Engine } from '../../src/engine/engine.js';
import { startEncoders, type EncoderHost } from '../../src/media/encoder-host.js';
import { REALTIME_PATH } from '../../src/protocol/limits.js';
import { Auth, type AuthOptions } from '../../src/server/auth.js';
import type { ServerConfig } from '../../src/server/server-config.js';
import { startServer, type Server } from '../../src/server/server.js';
import type { Transport } from '../../src/transport/transport.js';
import { writeRandomModel, type RandomModel } from '../model/random-model.js';
import { ControlClient } from './control-client.js';
import { MemoryTransport, type MemoryViewer } from './memory-transport.js';

export const TEST_CONFIG: ServerConfig = {
	host: '127.0.0.1', port: 0, allowedOrigins: [], iceServers: [{ urls: ['stun:stun.example.org'] }], defaultSteps: 0, bitrateBps: 500_000, bitrateFloorBps: 100_000, maxLeadMs: 1000,
	maxSessions: 2, maxWaiting: 0, maxSessionsPerKey: 0, maxSessionsPerAddress: 0, maxEngineShare: 0.85, maxViewers: 8, maxConnections: 8, maxConnectionsPerAddress: 0, trustedProxies: [], sessionMaxMs: 3_600_000, idleTimeoutMs: 60_000, startTimeoutMs: 60_000, resumeGraceMs: 0, whepOffersPerMinute: 60, messagesPerSecond: 200, badMessagesPerMinute: 60,
};

/** So few that a test can use them up. */
export const MAX_STREAMS = 16;

/** The processes that many servers of one test file share. */
export type Machine = { readonly model: RandomModel; readonly engine: EngineHost; readonly encoders: EncoderHost };

export const startMachine = async (prepareModel: (model: RandomModel) => Promise<void> = () => Promise.resolve()): Promise<Machine & AsyncDisposable> => {
	const model = await writeRandomModel();
	await prepareModel(model);
	const [engine, encoders] = await Promise.all([
		EngineHost.start({ modelFolder: model.path, profile: 'cpu-fp32', threads: 1, maxStreams: MAX_STREAMS, log: silentLog, clock: systemClock }),
		startEncoders({ implementation: 'auto', log: silentLog, clock: systemClock }),
	]);
	await engine.ready();
	return {
		model, engine, encoders,
		[Symbol.asyncDispose]: async () => {
			await engine.close();
			await encoders.close();
			await model[Symbol.asyncDispose]();
		},
	};
};

export type Service = AsyncDisposable & {
	readonly server: Server;
	readonly url: string;
	readonly socketUrl: string;
	readonly memory: MemoryTransport;
	readonly connect: () => Promise<ControlClient>;
	/** A client whose video connection is up. */
	readonly connectViewer: () => Promise<{ client: ControlClient; viewer: MemoryViewer }>;
};

export const startService = async (machine: Pick<Machine, 'encoders'> & { readonly engine: Engine }, changes: Partial<ServerConfig> = {}, transport?: Transport, authChanges: Partial<AuthOptions> = {}, onFrame?: (frame: RawFrame) => void): Promise<Service> => {
	const memory = new MemoryTransport();
	const auth = await Auth.open({ keys: [], keysFile: undefined, secretsPerMinute: 50, log: silentLog, clock: systemClock, ...authChanges });
	const server = await startServer({
		version: '0.0.0', config: { ...TEST_CONFIG, ...changes }, engine: machine.engine, encoders: machine.encoders, transport: transport ?? memory, auth,
		log: silentLog, metrics: new Metrics(), clock: systemClock, ...(onFrame === undefined ? {} : { onFrame }),
	});
	const url = server.address.url;
	const socketUrl = `${url.replace('http', 'ws').replace(/\/$/u, '')}${REALTIME_PATH}`;
	const connect = (): Promise<ControlClient> => ControlClient.open(socketUrl);
	return {
		server, url, socketUrl, memory, connect,
		connectViewer: async () => {
			const client = await connect();
			client.send({ type: 'webrtc.offer', sdp: 'v=0' });
			await client.next('webrtc.answer');
			const viewer = memory.viewers.at(-1);
			if (viewer === undefined) {
				throw new Error('no viewer');
			}
			return { client, viewer };
		},
		[Symbol.asyncDispose]: () => server.close(),
	};
};
