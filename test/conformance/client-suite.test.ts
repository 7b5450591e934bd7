/** The suite for clients: a client on raw `ws` and our SDK pass it, and each mistake of a client is caught by the scene that is about it. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLog } from '../../src/base/log.js';
import { systemClock } from '../../src/base/time.js';
import { connect } from '../../client/node/index.js';
import { runClientSuite } from '../../src/conformance/client-suite.js';
import type { Result } from '../../src/conformance/verdict.js';
import type { Transport } from '../../src/transport/transport.js';
import { createWebRtcTransport } from '../../src/transport/webrtc.js';
import { CLIENT_MISTAKES, PlainClient, type ClientMistake } from './plain-client.js';

let transport: Transport;
before(() => {
	transport = createWebRtcTransport({ fps: 16, log: silentLog, clock: systemClock });
});
after(() => transport.close());

/** Room for a machine that is busy with all of these at once; who never comes is waited for as long. */
const PATIENCE_MS = 30_000;

/** Plays the script to the client that `start` connects, until `isEnough`. */
const play = async (start: (url: string) => { readonly close: () => void }, isEnough: (result: Result) => boolean = () => false): Promise<Result[]> => {
	const results: Result[] = [];
	let client: { readonly close: () => void } | undefined;
	const onListening = (url: string): void => {
		client = start(url);
	};
	try {
		for await (const result of runClientSuite({ port: 0, patienceMs: PATIENCE_MS, transport, onListening, signal: AbortSignal.timeout(200_000) })) {
			results.push(result);
			if (isEnough(result)) {
				break;
			}
		}
	} finally {
		client?.close();
	}
	return results;
};

const CAUGHT: { readonly [mistake in ClientMistake]: readonly [scene: RegExp, says: RegExp] } = {
	'speaks first': [/waits for session.created/u, /messages before session.created is 1 instead of 0/u],
	'speaks when pinged': [/waits for session.created/u, /messages before session.created is 1 instead of 0/u],
	'minds unknown types': [/ignores unknown types|answers pings|comes back within/u, /the client closed the connection|did not come|no pong came/u],
	'forgets its token': [/comes back within the grace/u, /resume_token .* is nothing instead of "rt_of_the_place"/u],
	'gives up': [/comes back within the grace/u, /a connection of the client did not come/u],
	'never waits': [/less and less often/u, /tried \d+ times in 5 s/u],
	'ignores retry_after_ms': [/waits for retry_after_ms/u, /came back after \d+ ms; retry_after_ms was 2500/u],
	'fights': [/does not fight/u, /connected again/u],
	'repeats ids': [/sends right messages/u, /two messages of one connection have the event_id "a"/u],
	'steers early': [/sends right messages/u, /session.pause came before session.start/u],
};

describe('', { concurrency: true }, () => {
	test('a client on raw ws passes', async () => {
		const results = await play((url) => new PlainClient(url));
		assert.deepEqual(results.filter(({ verdict }) => verdict === 'fail'), []);
		assert.deepEqual(results.filter(({ verdict }) => verdict === 'skipped').map(({ reason }) => reason), ['the client asked for no video', 'the client asked for no video before']);
	});

	test('our SDK passes in Node, video included', async () => {
		const results = await play((url) => {
			const session = connect(url);
			session.start('a cat jumps').then((change) => change.applied, () => undefined).catch(() => undefined);
			session.ready.catch(() => undefined);
			session.created.catch(() => undefined);
			return session;
		});
		assert.deepEqual(results.filter(({ verdict }) => verdict !== 'pass'), []);
	});

	for (const mistake of CLIENT_MISTAKES) {
		test(`caught: a client that ${mistake}`, async () => {
			const [scene, says] = CAUGHT[mistake];
			const results = await play((url) => new PlainClient(url, mistake), ({ verdict }) => verdict === 'fail');
			const caught = results.find(({ verdict }) => verdict === 'fail');
			assert.match(caught?.name ?? 'nothing', scene);
			assert.match(caught?.reason ?? '', says);
		});
	}
});
