/**
 * Which players get the video by WHEP: each plays a session of its own from a server on this machine, which generates with the model that comes with turbocast.
 *
 *     npm run bench -- peers [SECONDS] [NAME ...]
 *
 * Prints a row for each player: connected, frames decoded, time from the start of its offer to its first picture, sizes, and what its DELETE was answered; or
 * why it could not run. Nothing is installed; docs/players.md says which packages the players need.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLog } from '../src/base/log.js';
import { systemClock } from '../src/base/time.js';
import { EngineHost } from '../src/engine/engine-host.js';
import { startEncoders } from '../src/media/encoder-host.js';
import { IceServers } from '../src/server/ice-servers.js';
import { createWebRtcTransport } from '../src/transport/webrtc.js';
import { findChromium } from '../test/browser/chromium.js';
import { repositoryRoot } from '../test/repository.js';
import { startService } from '../test/server/service.js';
import { Receiver } from '../test/transport/receiver.js';
import { PLAIN_PAGE, RELAY_PAGE, WHIP_WHEP_PAGE } from './peers/browser-page.js';
import { printTable, printWhere } from './report.js';

const FPS = 16;
/** Beyond its seconds, for a player to start. */
const START_MS = 60_000;
/** Of a TURN server that lives as long as one player. */
const TURN_PORT = 34_780;
const TURN = { urls: [`turn:127.0.0.1:${TURN_PORT}?transport=udp`], secret: 'bench', credentialSeconds: 600 };
const FIREFOX_PATHS = ['/usr/bin/firefox-esr', '/usr/bin/firefox'];
const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';
const WHIP_WHEP = join(repositoryRoot, 'node_modules', 'whip-whep', 'whep.js');

type Outcome = {
	readonly version?: string; readonly connected: boolean; readonly frames: number; readonly sizes: readonly string[]; readonly firstMs: number | null; readonly ended: number | null; readonly error?: string;
	/** The kind of the player's candidate that was chosen, where it tells. */
	readonly way?: string;
};
type Peer = { readonly name: string; /** Rejects with the reason when it cannot run. */ readonly play: (url: string, seconds: number) => Promise<Outcome> };

/** What a command prints; rejects when it fails, with the end of what it complained of. */
const output = async (command: string, args: readonly string[], limitMs: number): Promise<string> => {
	const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
	let [text, complaint] = ['', ''];
	child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
	child.stderr.setEncoding('utf8').on('data', (part: string) => (complaint = (complaint + part).slice(-2000)));
	const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
	const [code] = (await once(child, 'close')) as [number | null];
	clearTimeout(timer);
	if (code !== 0) {
		throw new Error(code === null ? 'did not come to an end' : (complaint.trim().split('\n').at(-1) ?? `exit ${code}`));
	}
	return text;
};

const python = (script: string, imports: string, packages: string): Peer['play'] => async (url, seconds) => {
	await output(PYTHON, ['-c', imports], START_MS).catch((error: unknown) => {
		throw new Error(`needs ${packages} (${(error as Error).message})`);
	});
	const lines = (await output(PYTHON, [join(repositoryRoot, 'bench', 'peers', script), url, String(seconds)], START_MS + 1000 * seconds)).trim().split('\n');
	return JSON.parse(lines.at(-1) ?? '') as Outcome;
};

/** Serves the pages, and hears how they went. */
const openPages = async () => {
	const waiting = new Map<string, (outcome: Outcome) => void>();
	const server = createServer((request, response) => {
		const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
		if (pathname === '/whep.js') {
			void readFile(WHIP_WHEP).then((text) => response.setHeader('content-type', 'text/javascript').end(text));
		} else if (pathname === '/result') {
			let text = '';
			request.setEncoding('utf8').on('data', (part: string) => (text += part)).on('end', () => {
				waiting.get(searchParams.get('id') ?? '')?.(JSON.parse(text) as Outcome);
				response.end();
			});
		} else {
			response.setHeader('content-type', 'text/html').end(pathname === '/whip-whep' ? WHIP_WHEP_PAGE : pathname === '/relay' ? RELAY_PAGE : PLAIN_PAGE);
		}
	}).listen(0, '127.0.0.1');
	await once(server, 'listening');
	const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
	let count = 0;
	return {
		origin,
		/** Opens the page with a browser of its own, and closes that. */
		play: async (page: string, url: string, seconds: number, command: string, args: readonly string[], query = ''): Promise<Outcome> => {
			const version = (await output(command, ['--version'], START_MS)).trim().split('\n').at(-1) ?? '';
			const id = String(count++);
			const heard = new Promise<Outcome>((resolve) => waiting.set(id, resolve));
			const child = spawn(command, [...args, `${origin}/${page}?id=${id}&seconds=${seconds}&url=${encodeURIComponent(url)}${query}`], { stdio: 'ignore', detached: true });
			const closed = once(child, 'close');
			const stop = new AbortController();
			try {
				return {
					...(await Promise.race([
						heard,
						closed.then(() => Promise.reject(new Error('the browser ended'))),
						systemClock.sleep(START_MS + 1000 * seconds, stop.signal).then(() => Promise.reject(new Error('the page said nothing'))),
					])), version,
				};
			} finally {
				stop.abort();
				closed.catch(() => undefined);
				if (child.exitCode === null && child.pid !== undefined) {
					// The whole group: browsers are many processes.
					process.kill(-child.pid, 'SIGKILL');
					await closed;
				}
			}
		},
		close: () => {
			server.closeAllConnections();
			server.close();
		},
	};
};

type Pages = Awaited<ReturnType<typeof openPages>>;

const inFolder = async <T>(use: (folder: string) => Promise<T>): Promise<T> => {
	const folder = await mkdtemp(join(tmpdir(), 'turbocast-peers-'));
	try {
		return await use(folder);
	} finally {
		await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
	}
};

const chromium = (pages: Pages, page: string, query = ''): Peer['play'] => async (url, seconds) => {
	const command = findChromium();
	if (command === undefined) {
		throw new Error('needs chromium');
	}
	return inFolder((folder) => pages.play(page, url, seconds, command, [
		'--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', `--user-data-dir=${folder}`, '--autoplay-policy=no-user-gesture-required',
		'--allow-loopback-in-peer-connection', '--disable-features=WebRtcHideLocalIpsWithMdns',
	], query));
};

/** Chromium that may use nothing but the relay of a coturn of its own, with a name and a password as turbocast makes them. */
const throughCoturn = (pages: Pages): Peer['play'] => async (url, seconds) => {
	const version = await output('turnserver', ['--version'], START_MS).catch((error: unknown) => {
		throw new Error(`needs coturn (${(error as Error).message})`);
	});
	return inFolder(async (folder) => {
		const relay = spawn('turnserver', [
			'-n', '--listening-ip=127.0.0.1', '--relay-ip=127.0.0.1', `--listening-port=${TURN_PORT}`, '--use-auth-secret', `--static-auth-secret=${TURN.secret}`, '--realm=turn.example', '--allow-loopback-peers', '--cli-password=unused',
			`--cli-port=${TURN_PORT + 1}`, '--no-tls', '--no-dtls', `--userdb=${join(folder, 'users')}`, `--pidfile=${join(folder, 'pid')}`, `--log-file=${join(folder, 'log')}`, '--simple-log',
		], { stdio: 'ignore' });
		const ended = once(relay, 'close');
		try {
			const ice = encodeURIComponent(JSON.stringify(new IceServers([], TURN).list('bench')));
			const outcome = await chromium(pages, 'relay', `&ice=${ice}`)(url, seconds);
			return { ...outcome, version: `${outcome.version ?? ''}, coturn ${version.trim().split('\n').at(-1) ?? ''}` };
		} finally {
			relay.kill();
			await ended;
		}
	});
};

/** Firefox takes the loopback interface for no network unless it is told to. */
const FIREFOX_PREFERENCES = {
	'media.peerconnection.ice.loopback': true, 'media.peerconnection.ice.obfuscate_host_addresses': false, 'media.autoplay.default': 0,
	'browser.shell.checkDefaultBrowser': false, 'datareporting.policy.dataSubmissionEnabled': false, 'app.update.enabled': false, 'browser.aboutwelcome.enabled': false,
};

const firefox = (pages: Pages): Peer['play'] => async (url, seconds) => {
	const command = FIREFOX_PATHS.find((path) => existsSync(path));
	if (command === undefined) {
		throw new Error('needs firefox-esr');
	}
	return inFolder(async (folder) => {
		await writeFile(join(folder, 'user.js'), Object.entries(FIREFOX_PREFERENCES).map(([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
		return pages.play('plain', url, seconds, command, ['--headless', '--no-remote', '--profile', folder]);
	});
};

const werift: Peer['play'] = async (url, seconds) => {
	const startedMs = systemClock.nowMs();
	await using receiver = new Receiver('h264');
	await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
	const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: receiver.connection.localDescription?.sdp ?? '' });
	await receiver.connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });
	let firstMs: number | null = null;
	void receiver.until(() => receiver.units.length > 0).then(() => {
		firstMs = systemClock.nowMs() - startedMs;
	});
	await systemClock.sleep(1000 * seconds);
	const connected = receiver.connection.connectionState === 'connected';
	const ended = await fetch(new URL(response.headers.get('location') ?? '', url), { method: 'DELETE' });
	// It decodes nothing: whole access units.
	return { connected, frames: receiver.units.length, sizes: [], firstMs, ended: ended.status };
};

const [secondsText, ...names] = process.argv.slice(2);
const seconds = Number(secondsText ?? 8);
if (!(seconds > 0 && seconds <= 600)) {
	throw new Error('SECONDS must be above 0 and at most 600.');
}
printWhere();
const [engine, encoders, pages] = await Promise.all([
	EngineHost.start({ modelFolder: join(repositoryRoot, 'models', 'toybox'), profile: 'cpu-int8', threads: 1, log: silentLog, clock: systemClock }),
	startEncoders({ implementation: 'auto', log: silentLog, clock: systemClock }),
	openPages(),
]);
await engine.ready();
const transport = createWebRtcTransport({ announceAddresses: ['127.0.0.1'], fps: FPS, log: silentLog, clock: systemClock });
const service = await startService({ engine, encoders }, { allowedOrigins: [pages.origin], iceServers: [] }, transport);
const url = new URL('/v1/realtime/whep?prompt=a%20cat%20jumps&steps=2&seed=1', service.url).href;

const peers: readonly Peer[] = [
	{ name: 'Chromium', play: chromium(pages, 'plain') },
	{
		name: 'whip-whep 1.2.0 in Chromium',
		play: (at, forSeconds) => (existsSync(WHIP_WHEP) ? chromium(pages, 'whip-whep')(at, forSeconds) : Promise.reject(new Error('needs npm install'))),
	},
	{ name: 'Chromium through coturn', play: throughCoturn(pages) },
	{ name: 'Firefox', play: firefox(pages) },
	{ name: 'aiortc', play: python('receive-aiortc.py', 'import aiortc', 'python3-aiortc') },
	{
		name: 'GStreamer webrtcbin',
		play: python('receive-gstreamer.py', 'import gi; gi.require_version("GstWebRTC", "1.0"); gi.require_version("GstSdp", "1.0")', 'python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice gstreamer1.0-plugins-bad gstreamer1.0-libav'),
	},
	{ name: 'werift (Node)', play: werift },
	{ name: 'ffmpeg', play: () => Promise.reject(new Error('ffmpeg sends by WHIP, and receives no WHEP')) },
];

const rows: string[][] = [];
for (const { name, play } of peers.filter((peer) => names.length === 0 || names.some((word) => peer.name.toLowerCase().includes(word.toLowerCase())))) {
	try {
		const { version, connected, frames, sizes, firstMs, ended, way, error } = await play(url, seconds);
		rows.push([`${name}${version === undefined ? '' : ` (${version})`}`, connected ? 'yes' : 'no', String(frames), firstMs === null ? '-' : `${Math.round(firstMs)} ms`, sizes.join(', ') || '-', ended === null ? '-' : String(ended), error ?? way ?? '']);
	} catch (error) {
		rows.push([name, '-', '-', '-', '-', '-', `not run: ${error instanceof Error ? error.message : String(error)}`]);
	}
	console.log(rows.at(-1)?.join('; '));
}
printTable(['player', 'connected', 'frames', 'first picture', 'sizes', 'DELETE', 'way, or what was wrong'], rows);
pages.close();
await service[Symbol.asyncDispose]();
await engine.close();
await encoders.close();
