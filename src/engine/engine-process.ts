/**
 * Entry of an engine process (a child of engine-host.ts): loads one model, says that it is ready, and serves requests until
 * it is told to stop or its parent is gone. The tensor library blocks this process and no other.
 */
import { systemClock } from '../base/time.js';
import { openModelFolder } from '../model/model-folder.js';
import { TurbocastError } from '../protocol/errors.js';
import type { EngineProcessOptions } from './engine-child.js';
import { EngineServer } from './engine-server.js';
import { loadNetworks } from './networks.js';
import { HEARTBEAT_INTERVAL_MS, type EngineEvent, type EngineRequest } from './protocol.js';

/** To whoever started us; without a parent there is nobody left to tell, and the process is about to end. */
const send = (event: EngineEvent, whenSent: () => void = () => undefined): void => {
	process.send?.(event, undefined, undefined, whenSent);
};

const main = async (): Promise<void> => {
	const { modelFolder, loadsAhead, maxStreams, ...options } = JSON.parse(process.argv[2] ?? '{}') as EngineProcessOptions;
	// Ctrl-C reaches the whole process group: the parent decides when an engine ends, and tells it.
	process.on('SIGINT', () => undefined);
	process.on('SIGTERM', () => undefined);
	process.on('disconnect', () => process.exit(0));
	if (!process.connected) {
		process.exit(0); // It was gone before all this was loaded, and will not be gone again.
	}

	const server = new EngineServer({
		load: (size) => loadNetworks({ folder: modelFolder, ...options, warn: (sentence) => process.emitWarning(sentence), ...size }),
		send,
		isBatchMeasured: options.batch === 'auto',
		maxStreams,
		nowMs: systemClock.nowMs,
	});
	process.on('message', (message) => {
		// Our own parent speaks here, of the same release: the protocol's types hold.
		const request = message as EngineRequest;
		if (request.type === 'engine.close') {
			void server.close().finally(() => process.exit(0));
		} else {
			server.receive(request);
		}
	});
	try {
		const { spec } = await openModelFolder(modelFolder, { verify: false });
		send({ type: 'engine.ready', ...(await server.warm(spec.width, spec.height)) });
		setInterval(() => send({ type: 'engine.heartbeat' }), HEARTBEAT_INTERVAL_MS);
		if (loadsAhead === true) {
			server.prepare();
		}
	} catch (error) {
		const { code, message } = TurbocastError.from(error);
		send({ type: 'engine.failed', code, message }, () => process.exit(1));
	}
};

await main();
