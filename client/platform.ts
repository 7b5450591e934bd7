/** What a session needs of the place it runs in: browsers bring it along, Node gets it from packages. */
import type { TurbocastError } from '../src/protocol/errors.js';
import type { ClientMessages, FrameMeta, ServerMessages } from '../src/protocol/messages.js';
import type { VideoUnit } from '../src/protocol/video-unit.js';
import type { VideoTransport } from './video-transport.js';

export type IceServers = ServerMessages['session.created']['ice_servers'];
export type Candidate = ClientMessages['webrtc.candidate']['candidate'];

/** A frame that reached its end: the screen in a browser, the application in Node. */
export type ShownFrame = {
	/** 90 kHz; that of the `frame.meta` of the same frame. */
	readonly rtpTimestamp: number;
	/** `performance.now()` time at which it is expected on the screen, or was handed to the application. */
	readonly atMs: number;
	/** When its last packet arrived, on the same clock; unknown in some browsers. */
	readonly receivedAtMs: number | undefined;
	/** Decoding it took, ms. */
	readonly decodeMs: number | undefined;
	/** When it was handed to the compositor. */
	readonly presentedAtMs: number | undefined;
	/** Frames shown so far. */
	readonly presentedFrames: number;
};

export type SocketCodec = ClientMessages['video.open']['codecs'][number];

export type VideoEvents = {
	readonly onOffer: (sdp: string) => void;
	readonly onCandidate: (candidate: Candidate) => void;
	readonly onConnected: () => void;
	/** Nothing comes for now; it may come back by itself, which is told as `onConnected`. */
	readonly onDisturbed: () => void;
	/** It will not come back by itself. */
	readonly onFailed: (error?: TurbocastError) => void;
	readonly onFrameMeta: (meta: FrameMeta) => void;
	/** Whether the server is heard over the control socket, from now on, within this time. */
	readonly untilHeard: (withinMs: number) => Promise<boolean>;
};

/** One peer connection that receives one track and the telemetry of its frames. */
export type VideoConnection = {
	/** Makes the offer and hands it over. */
	readonly offer: () => Promise<void>;
	readonly answer: (sdp: string) => Promise<void>;
	readonly addCandidate: (candidate: Candidate) => Promise<void>;
	readonly getStats: () => Promise<RTCStatsReport>;
	/** Whether a picture of it was decoded. */
	readonly hasPicture: () => Promise<boolean>;
	/** Idempotent. */
	readonly close: () => void;
};

export type SocketVideoEvents = {
	/** The first picture is ready to be shown. */
	readonly onPicture: () => void;
	/** The decoder lost the picture. */
	readonly onKeyframeNeeded: () => void;
	/** It cannot decode this video. */
	readonly onFailed: (error: TurbocastError) => void;
};

/** Decodes the access units that come over the control socket. */
export type SocketVideo = {
	/** What it decodes, what it likes best first. */
	readonly codecs: SocketCodec[];
	/** In order. A key frame comes first, and after every loss. */
	readonly unit: (unit: VideoUnit) => void;
	/** Idempotent. */
	readonly close: () => void;
};

/** Where the video of one session goes, whichever way it comes. */
export type VideoSink = {
	readonly open: (iceServers: IceServers, events: VideoEvents) => VideoConnection;
	/** `undefined` where the place cannot decode it that way. */
	readonly openSocketVideo: (transport: Exclude<VideoTransport, 'webrtc'>, events: SocketVideoEvents) => Promise<SocketVideo | undefined>;
	/** The picture is that of `source` from now on; the one before stays until it is there. */
	readonly use: (source: VideoConnection | SocketVideo) => void;
	/** From now on what comes is to be shown: a prompt was sent, or the connection was made anew. */
	readonly show: () => void;
	/** A frame was announced by its record. */
	readonly announced: (meta: FrameMeta) => void;
	/** Idempotent. */
	readonly close: () => void;
};

export type Platform = {
	readonly hasWebRtc: boolean;
	readonly WebSocket: new (url: string, protocols: string[]) => WebSocket;
	/** `onShown` is called for every frame that reached its end. */
	readonly openSink: (onShown: (frame: ShownFrame) => void) => VideoSink;
};
