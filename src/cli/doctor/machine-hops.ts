/** This machine and its configuration: what a service started with it would stand on, each part tried as the service uses it. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIP } from 'node:net';
import { i420Bytes } from '../../base/frame.js';
import { silentLog } from '../../base/log.js';
import { systemClock } from '../../base/time.js';
import type { Config } from '../../config.js';
import { EngineHost } from '../../engine/engine-host.js';
import { clauseOf } from '../../media/encoder-choice.js';
import { startEncoders } from '../../media/encoder-host.js';
import type { Encoders } from '../../media/encoder.js';
import { fine, judgeMedia, judgeTurn, wrong, type Finding } from '../../protocol/diagnoses.js';
import { TurbocastError } from '../../protocol/errors.js';
import { IceServers } from '../../server/ice-servers.js';
import { ownAddresses } from '../../transport/own-addresses.js';
import { candidateAddresses, Probe } from '../../transport/probe.js';
import { tryTurn } from '../../transport/turn-probe.js';
import { createWebRtcTransport } from '../../transport/webrtc.js';
import { chosenDevice, engineOptions } from '../engine-options.js';

export type MachineExamination = {
	readonly config: Config;
	/** For one hop but the engine. */
	readonly patienceMs: number;
	readonly signal: AbortSignal;
};

/** Loading a published model from a slow disk takes minutes. */
const ENGINE_PATIENCE_MS = 600_000;
const SIDE = 128;
const FPS = 16;

type Size = { readonly width: number; readonly height: number };

/** The finding, and the size of the model's pictures where it could be read. */
const examineModel = async ({ config, signal }: MachineExamination): Promise<{ readonly finding: Finding; readonly size: Size }> => {
	let engine: EngineHost | undefined;
	try {
		const device = await chosenDevice(config, silentLog);
		engine = await EngineHost.start({ ...engineOptions(config, device), standby: 'off', log: silentLog, clock: systemClock });
		await engine.ready(AbortSignal.any([signal, AbortSignal.timeout(ENGINE_PATIENCE_MS)]));
		const { width, height } = engine.model;
		return { finding: fine('model', `The engine runs ${config.engine.model} (${width}x${height}) as ${device.profile}.`), size: { width, height } };
	} catch (error) {
		signal.throwIfAborted();
		return { finding: wrong('model_unusable', { why: TurbocastError.from(error, 'engine_failed').message }), size: { width: SIDE, height: SIDE } };
	} finally {
		await engine?.close();
	}
};

const examinePort = async ({ host, port }: Config['server']): Promise<Finding> => {
	const server = createServer();
	try {
		server.listen(port, host);
		await once(server, 'listening');
		return fine('ports', port === 0 ? 'Any free TCP port is taken.' : `TCP port ${port} of ${host} is free.`);
	} catch (error) {
		const { code } = error as NodeJS.ErrnoException;
		return wrong('port_taken', { host, port, why: code === 'EADDRINUSE' ? 'something listens there' : code === 'EACCES' ? 'this user may not' : code === 'EADDRNOTAVAIL' ? 'this machine has no such address' : code ?? 'unknown reason' });
	} finally {
		server.close();
	}
};

const isFree = async (port: number): Promise<boolean> => {
	const socket = createSocket('udp4');
	try {
		socket.bind(port);
		await once(socket, 'listening');
		return true;
	} catch {
		return false;
	} finally {
		socket.close();
	}
};

/** More are not counted. */
const MOST_PORTS = 256;

const examineUdpPorts = async ({ udp_port_min: from, udp_port_max: to }: Config['media']): Promise<Finding> => {
	if (from === 0) {
		return fine('ports', 'Any free UDP ports carry the video: a firewall must let all of them through.');
	}
	const ports = Array.from({ length: Math.min(to - from + 1, MOST_PORTS) }, (_, index) => from + index);
	const free = (await Promise.all(ports.map(isFree))).filter(Boolean).length;
	return free === 0
		? wrong('udp_ports_taken', { from, to })
		: fine('ports', `${free} of ${ports.length} UDP ports from ${from} on are free; each viewer takes one.`);
};

/** A real connection of this machine to itself, with the ports and addresses of the configuration, over which a real picture goes. */
async function* examineMedia({ config: { media }, patienceMs }: MachineExamination, encoders: Encoders | undefined): AsyncGenerator<Finding, void> {
	const { announce_addresses: announced } = media;
	const transport = createWebRtcTransport({
		portRange: media.udp_port_min === 0 ? undefined : [media.udp_port_min, media.udp_port_max], announceAddresses: announced, segmentation: media.udp_segmentation, fps: FPS, log: silentLog, clock: systemClock,
	});
	try {
		await using probe = await Probe.open([]);
		const { viewer, answerSdp } = await transport.accept(probe.offer);
		await probe.answer(answerSdp);
		const pair = await probe.connected(patienceMs);
		yield judgeMedia({ pair, reached: '127.0.0.1', announced: candidateAddresses(answerSdp), own: ownAddresses() });
		if (pair !== undefined && encoders !== undefined) {
			const encoder = await encoders.open({ codec: viewer.codec, width: SIDE, height: SIDE, fps: FPS, bitrateBps: 500_000 });
			const comes = probe.hasPackets(patienceMs);
			const data = new Uint8Array(i420Bytes(SIDE, SIDE)).fill(128);
			for (let frameId = 0; frameId < FPS; frameId += 1) {
				viewer.send(await encoder.encode({ frameId, chunkIndex: 0, indexInChunk: frameId, width: SIDE, height: SIDE, data, generatedAtMs: systemClock.nowMs() }, frameId * 5625));
			}
			yield await comes ? fine('picture', 'An encoded picture went over it.') : wrong('picture_missing', { why: 'no packet of it arrived.' });
			await encoder.close();
		}
		for (const address of announced) {
			yield await examineAnnounced(address, transport, patienceMs);
		}
	} finally {
		await transport.close();
	}
}

/** The same by this address alone. */
const examineAnnounced = async (address: string, transport: ReturnType<typeof createWebRtcTransport>, patienceMs: number): Promise<Finding> => {
	if (isIP(address) === 0) {
		return wrong('wrong_address', { announced: `"${address}", which is no IP address`, reached: 'an address' });
	}
	await using probe = await Probe.open([]);
	// The other side must not find the way by itself.
	const { answerSdp, viewer } = await transport.accept(probe.offer.replaceAll(/^a=candidate:.*\r\n/gmu, ''));
	await probe.answer(answerSdp.split('\r\n').filter((line) => !line.startsWith('a=candidate:') || line.includes(` ${address} `)).join('\r\n'));
	const pair = await probe.connected(patienceMs);
	await viewer.close('the doctor has seen enough');
	return pair === undefined ? wrong('announced_unreached', { announced: address }, 'doubtful') : fine('media', `The advertised address ${address} was reached by UDP.`);
};

export async function* examineMachine(examination: MachineExamination): AsyncGenerator<Finding, void> {
	const { config, patienceMs } = examination;
	const { finding, size } = await examineModel(examination);
	yield finding;
	let encoders: Awaited<ReturnType<typeof startEncoders>> | undefined;
	try {
		encoders = await startEncoders({ implementation: config.media.encoder, ffmpegPath: config.media.ffmpeg_path, size, log: silentLog, clock: systemClock });
		yield fine('encoder', `${encoders.implementation} encodes; ${encoders.reports.map(clauseOf).join('; ')}.`);
	} catch (error) {
		yield wrong('encoder_missing', { why: TurbocastError.from(error, 'encoder_failed').message });
	}
	try {
		yield await examinePort(config.server);
		const udp = await examineUdpPorts(config.media);
		yield udp;
		const { turn_urls: urls, turn_secret: secret, turn_credential_seconds: credentialSeconds, ice_servers: fixed } = config.media;
		yield* await judgeTurn(new IceServers(fixed, urls.length === 0 ? undefined : { urls, secret, credentialSeconds }).list('doctor'), (url, username, credential) => tryTurn(url, username, credential, patienceMs));
		if (udp.verdict === 'good') {
			yield* examineMedia(examination, encoders);
		}
	} finally {
		await encoders?.close();
	}
}
