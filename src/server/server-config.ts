/** What an operator decides about the server. `config/default.yaml` explains each; `app.ts` maps the one to the other. */
import type { RecordingLimits } from '../media/recording.js';
import type { Infer } from '../protocol/schema.js';
import type { TurnConfig } from './ice-servers.js';
import type { SERVER_SCHEMAS } from '../protocol/messages.js';

export type IceServer = Infer<(typeof SERVER_SCHEMAS)['session.created']>['ice_servers'][number];

export type ServerConfig = {
	readonly host: string;
	/** 0 takes any free port. */
	readonly port: number;
	/** Addresses and networks of proxies whose `X-Forwarded-For` is believed. */
	readonly trustedProxies: readonly string[];
	/** Origins besides our own whose pages may open a session; '*' allows all. */
	readonly allowedOrigins: readonly string[];
	/** Handed to clients as they are. */
	readonly iceServers: readonly IceServer[];
	/** TURN servers for which each client gets credentials of its own. */
	readonly turn?: TurnConfig | undefined;
	/** Steps of a session that does not say; 0 for the model's own default. */
	readonly defaultSteps: number;
	/** Of the video, at most. */
	readonly bitrateBps: number;
	/** A viewer whose way carries less gets a smaller picture. */
	readonly bitrateFloorBps: number;
	readonly maxLeadMs: number;
	readonly maxSessions: number;
	/** Sessions that may wait for a place; 0 refuses at once. */
	readonly maxWaiting: number;
	/** Running and waiting sessions of one server key, its client secrets included; 0 for any number. */
	readonly maxSessionsPerKey: number;
	readonly maxSessionsPerAddress: number;
	/** Share of real time, 0 to 1, that all sessions together may take of the engine. */
	readonly maxEngineShare: number;
	/** That come to watch one session, besides the connection that has it. */
	readonly maxViewers: number;
	readonly maxConnections: number;
	/** 0 for any number. */
	readonly maxConnectionsPerAddress: number;
	readonly sessionMaxMs: number;
	/** A generating session without a connected viewer ends after this. */
	readonly idleTimeoutMs: number;
	/** A connection without a session ends after this. */
	readonly startTimeoutMs: number;
	/** A started session whose connection was lost is held for this long; 0 ends it at once. */
	readonly resumeGraceMs: number;
	/** Where the record of each session is written; none when left out. */
	readonly sessionsFolder?: string | undefined;
	/** Offers by HTTP of one address. */
	readonly whepOffersPerMinute: number;
	/** What is kept of each session; nothing when left out. */
	readonly recording?: RecordingLimits | undefined;
	/** Where sessions may be published to by WHIP, and how often each; nowhere when left out. */
	readonly publish?: { readonly allowedOrigins: readonly string[]; readonly maxPerSession: number; /** Before the first attempt to come back; a second by default. */ readonly firstWaitMs?: number } | undefined;
	readonly messagesPerSecond: number;
	/** Mistakes of one connection before it is closed. */
	readonly badMessagesPerMinute: number;
	/** Offers of one connection; each costs a peer connection. Default 30. */
	readonly offersPerMinute?: number;
	/** How often a silent socket is asked whether it is still there; it is given up after three intervals. Default 5000. */
	readonly heartbeatMs?: number;
};
