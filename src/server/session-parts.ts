/** What a session is made of, and who is at its other end. */
import type { RawFrame } from '../base/frame.js';
import type { Log } from '../base/log.js';
import type { Clock } from '../base/time.js';
import type { Engine } from '../engine/engine.js';
import type { Encoders } from '../media/encoder.js';
import type { ServerMessage } from '../protocol/messages.js';
import type { VideoSocket } from '../transport/socket-viewer.js';
import type { Transport } from '../transport/transport.js';
import type { Admission } from './admission.js';
import type { Auth, Grant } from './auth.js';
import type { AddressOf } from './client-address.js';
import type { ConnectionLimit } from './connection-limit.js';
import type { IceServers } from './ice-servers.js';
import type { ModelInfo } from './model-info.js';
import type { ServerConfig } from './server-config.js';
import type { ServerMetrics } from './server-metrics.js';
import type { SessionRegistry } from './session-registry.js';

export type SessionParts = {
	readonly config: ServerConfig;
	readonly engine: Engine;
	readonly encoders: Encoders;
	readonly transport: Transport;
	readonly admission: Admission;
	readonly auth: Auth;
	readonly sessions: SessionRegistry;
	readonly connections: ConnectionLimit;
	readonly addressOf: AddressOf;
	readonly iceServers: IceServers;
	readonly model: ModelInfo;
	readonly metrics: ServerMetrics;
	readonly log: Log;
	readonly clock: Clock;
	/** Unsigned 32 bits. */
	readonly randomUint32: () => number;
	readonly onFrame?: ((frame: RawFrame) => void) | undefined;
};

/** Who is at the other end. */
export type Visitor = { readonly grant: Grant; readonly address: string };

/** The way to the client. */
export type SessionPeer = {
	readonly send: (message: ServerMessage) => void;
	/** Video, between the messages. */
	readonly video: VideoSocket;
	/** After the last message; 1000 when the session ended as the client wished. */
	readonly close: (closeCode: number, reason: string) => void;
};
