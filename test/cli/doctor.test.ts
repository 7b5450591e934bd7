/** `turbocast doctor`: each diagnosis out of a set-up that is broken in that way. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { examineServer, type ServerExamination } from '../../src/cli/doctor/server-hops.js';
import { DIAGNOSES, HOPS, type Finding } from '../../src/protocol/diagnoses.js';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import type { AuthOptions } from '../../src/server/auth.js';
import { newServerKey } from '../../src/server/keys.js';
import type { ServerConfig } from '../../src/server/server-config.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { openBadNetwork } from '../browser/bad-network.js';
import { repositoryRoot } from '../repository.js';
import { startMachine, startService, type Machine, type Service } from '../server/service.js';
import { startTurnServer } from '../transport/turn-server.js';

let machine: Machine & AsyncDisposable;
let service: Service;
const startServer = (changes: Partial<ServerConfig> = {}, auth: Partial<AuthOptions> = {}): Promise<Service> =>
	startService(machine, { iceServers: [], ...changes }, createWebRtcTransport({ fps: machine.model.spec.fps, log: silentLog, clock: systemClock }), auth);

before(async () => {
	machine = await startMachine();
	service = await startServer();
});
after(async () => {
	await service[Symbol.asyncDispose]();
	await machine[Symbol.asyncDispose]();
});

/** Where nothing is to come, nothing is waited for long; where something is, long enough for a busy machine. */
const SHORT_MS = 10_000;
const LONG_MS = 60_000;

const examine = async (url: string, changes: Partial<ServerExamination> = {}): Promise<Finding[]> => {
	const findings: Finding[] = [];
	for await (const finding of examineServer({ url: new URL(url), token: undefined, origin: undefined, wantsPicture: false, patienceMs: LONG_MS, wallMs: Date.now, ...changes })) {
		findings.push(finding);
	}
	return findings;
};

/** What is broken, and notes that are not about TURN. */
const diagnosesOf = (findings: readonly Finding[]): unknown[] => findings.flatMap(({ diagnosis }) => (diagnosis === undefined || diagnosis === 'turn_missing' ? [] : [diagnosis]));

const doctor = async (args: readonly string[], environment: { readonly [name: string]: string } = {}): Promise<{ readonly status: unknown; readonly findings: Finding[]; readonly output: string }> => {
	const child = spawn(process.execPath, [join(repositoryRoot, 'bin/turbocast.mjs'), 'doctor', ...args], { stdio: ['ignore', 'pipe', 'ignore'], env: { ...process.env, TURBOCAST_SERVER__PORT: '0', ...environment } });
	let output = '';
	child.stdout.on('data', (data: Buffer) => (output += data.toString()));
	const [status] = await once(child, 'close') as [unknown];
	return { status, output, findings: output.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as Finding) };
};

test('a server that works: every hop is good, to the picture', async () => {
	const { status, findings } = await doctor([service.url, '--picture', '--json', '--patience', '60']);
	assert.deepEqual([status, diagnosesOf(findings)], [0, []]);
	assert.deepEqual(findings.map(({ hop }) => hop), ['server', 'clock', 'admission', 'codec', 'turn', 'media', 'picture']);
});

test('in words: a line for each hop, and the fix below the one that fails; exit status 1', async () => {
	const { status, output } = await doctor(['http://127.0.0.1:9']);
	assert.equal(status, 1);
	assert.match(output, /^FAILS {2}server {5}The server at http:\/\/127\.0\.0\.1:9 was not reached: nothing listens on that port\.\n +→ Check the address/u);
	assert.equal((await doctor(['ftp://x'])).status, 2);
});

test('a server that is not turbocast', async () => {
	const other = createServer((_request, response) => response.writeHead(404).end('nothing here'));
	other.listen(0, '127.0.0.1');
	await once(other, 'listening');
	assert.deepEqual(diagnosesOf(await examine(`http://127.0.0.1:${(other.address() as AddressInfo).port}`)), ['server_other']);
	other.close();
});

test('a server that takes the connection and says nothing, in bounded time', async () => {
	const silent = createServer(() => undefined);
	silent.listen(0, '127.0.0.1');
	await once(silent, 'listening');
	const [finding] = await examine(`http://127.0.0.1:${(silent.address() as AddressInfo).port}`, { patienceMs: 500 });
	assert.equal(finding?.diagnosis, 'server_unreached');
	assert.match(finding?.sentence ?? '', /nothing came back in time/u);
	silent.closeAllConnections();
	silent.close();
});

test('an Origin that the server does not allow, and one that it does', async () => {
	const findings = await examine(service.url, { origin: 'https://app.example' });
	assert.deepEqual(diagnosesOf(findings), ['origin_refused']);
	assert.match(findings.at(-1)?.fix ?? '', /https:\/\/app\.example.*allowed_origins/u);
	await using open = await startServer({ allowedOrigins: ['https://app.example'] });
	assert.deepEqual(diagnosesOf(await examine(open.url, { origin: 'https://app.example' })), []);
});

test('a key that is missing, wrong, or right', async () => {
	const key = newServerKey();
	await using closed = await startServer({}, { keys: [key] });
	assert.deepEqual(diagnosesOf(await examine(closed.url)), ['key_refused']);
	assert.deepEqual(diagnosesOf(await examine(closed.url, { token: newServerKey() })), ['key_refused']);
	assert.deepEqual(diagnosesOf(await examine(closed.url, { token: key })), []);
});

test('a clock that was moved by an hour', async () => {
	const findings = await examine(service.url, { wallMs: () => Date.now() + 3_600_000 });
	assert.deepEqual(diagnosesOf(findings), ['clock_skew']);
	const skew = findings.find(({ diagnosis }) => diagnosis === 'clock_skew');
	const seconds = Number(/are (\d+) seconds apart/u.exec(skew?.sentence ?? '')?.[1]);
	assert.ok(Math.abs(seconds - 3600) <= 60, String(seconds));
	assert.equal(skew?.verdict, 'doubtful');
});

test('a codec that was taken out of the offer on its way', async () => {
	await using network = await openBadNetwork(service.url, { offer: (sdp) => sdp.replaceAll(/(?:H264|VP8)\/90000/gu, 'AV1/90000') });
	assert.deepEqual(diagnosesOf(await examine(network.url)), ['codec_missing']);
});

test('UDP that does not come through', async () => {
	await using network = await openBadNetwork(service.url);
	network.blockMedia(true);
	assert.deepEqual(diagnosesOf(await examine(network.url, { patienceMs: SHORT_MS })), ['udp_blocked']);
	network.blockMedia(false);
	assert.deepEqual(diagnosesOf(await examine(network.url)), []);
});

test('an advertised address that leads nowhere', async () => {
	await using network = await openBadNetwork(service.url, { announce: '203.0.113.7' });
	const findings = await examine(network.url, { patienceMs: SHORT_MS });
	assert.deepEqual(diagnosesOf(findings), ['wrong_address']);
	assert.match(findings.find(({ diagnosis }) => diagnosis === 'wrong_address')?.sentence ?? '', /203\.0\.113\.7.*127\.0\.0\.1/u);
});

test('TURN: none, one that relays, one that refuses, one whose clock is wrong, one that is silent', async () => {
	const turnOf = async (url: string, secret: string, patienceMs = LONG_MS): Promise<Finding | undefined> => {
		await using relayed = await startServer({ turn: { urls: [url], secret, credentialSeconds: 600 } });
		return (await examine(relayed.url, { patienceMs })).find(({ hop }) => hop === 'turn');
	};
	assert.equal((await examine(service.url)).find(({ hop }) => hop === 'turn')?.diagnosis, 'turn_missing');
	await using turn = await startTurnServer('a secret');
	assert.equal((await turnOf(turn.url, 'a secret'))?.verdict, 'good');
	const refused = await turnOf(turn.url, 'another secret');
	assert.equal(refused?.diagnosis, 'turn_refused');
	assert.match(refused.sentence, /401 Unauthorized/u);
	await using late = await startTurnServer('a secret', () => Date.now() + 3_600_000);
	assert.equal((await turnOf(late.url, 'a secret'))?.diagnosis, 'turn_refused');
	const silent = createSocket('udp4').bind(0, '127.0.0.1');
	await once(silent, 'listening');
	assert.equal((await turnOf(`turn:127.0.0.1:${silent.address().port}`, 'a secret', SHORT_MS))?.diagnosis, 'turn_unreached');
	silent.close();
});

test('this machine: model, encoder, ports and a connection to itself, by an advertised address too', async () => {
	const { status, findings } = await doctor(['--json', '--patience', '60'], { TURBOCAST_MEDIA__ANNOUNCE_ADDRESSES: '[127.0.0.1]' });
	assert.deepEqual([status, diagnosesOf(findings)], [0, []]);
	assert.deepEqual(findings.map(({ hop }) => hop), ['model', 'encoder', 'ports', 'ports', 'turn', 'media', 'picture', 'media']);
	assert.match(findings[1]?.sentence ?? '', /works \(.* nvenc|nvenc .* works \(/u);
});

test('this machine, with everything wrong: each thing is told, and the next is looked at', async () => {
	const taken = createServer();
	taken.listen(0, '127.0.0.1');
	await once(taken, 'listening');
	const { status, findings } = await doctor(['--json', '--patience', '15'], {
		TURBOCAST_ENGINE__MODEL: 'no-such-model', TURBOCAST_MEDIA__ENCODER: 'ffmpeg', TURBOCAST_MEDIA__FFMPEG_PATH: '/nowhere/ffmpeg',
		TURBOCAST_SERVER__PORT: String((taken.address() as AddressInfo).port), TURBOCAST_MEDIA__ANNOUNCE_ADDRESSES: '[203.0.113.7, media.example]',
	});
	taken.close();
	assert.deepEqual([status, diagnosesOf(findings)], [1, ['model_unusable', 'encoder_missing', 'port_taken', 'announced_unreached', 'wrong_address']]);
});

test('UDP ports that others have', async () => {
	// Two in a row that are free now, and ours from then on.
	for (;;) {
		const [first, second] = [createSocket('udp4'), createSocket('udp4')];
		first.bind(0);
		await once(first, 'listening');
		const from = first.address().port;
		const isBound = from < 65_535 && await Promise.race([once(second.bind(from + 1), 'listening').then(() => true), once(second, 'error').then(() => false)]);
		if (!isBound) {
			first.close();
			continue;
		}
		const { findings } = await doctor(['--json', '--patience', '3'], {
			TURBOCAST_ENGINE__MODEL: 'no-such-model', TURBOCAST_MEDIA__UDP_PORT_MIN: String(from), TURBOCAST_MEDIA__UDP_PORT_MAX: String(from + 1),
		});
		first.close();
		second.close();
		assert.ok(diagnosesOf(findings).includes('udp_ports_taken'), JSON.stringify(findings));
		return;
	}
});

test('every diagnosis has a hop, one sentence and a fix, and a row of docs/doctor.md', () => {
	const rows = [...readFileSync(join(repositoryRoot, 'docs/doctor.md'), 'utf8').matchAll(/^\| `(\w+)` \| (\w+) \|/gmu)].map((match) => [match[1], match[2]]);
	assert.deepEqual(rows, Object.entries(DIAGNOSES).map(([code, { hop }]) => [code, hop]));
	for (const [code, { hop, says, fix }] of Object.entries(DIAGNOSES)) {
		assert.ok(HOPS.includes(hop) && fix.endsWith('.') && /[.}]$/u.test(says), code);
	}
});
