/** `turbocast serve`: the service, until it is told to stop. */
import type { Log } from '../base/log.js';
import type { Config } from '../config.js';
import type { FlagTable } from './arguments.js';
import { Interruption } from './interruption.js';

export const SERVE_FLAGS = {
	host: { values: ['H'], says: 'address to listen on; default 127.0.0.1' },
	port: { values: ['N'], says: 'TCP port; default 8080; 0 takes a free one' },
	config: { values: ['FILE'], says: 'configuration; see config/default.yaml' },
	device: { values: ['D'], says: 'auto, cpu, webgpu or cuda; see docs/gpu.md' },
	model: { values: ['NAME'], says: 'a name that `turbocast models` lists' },
} as const satisfies FlagTable;

/** Runs until `signal` aborts; SIGTERM lets sessions finish first. Rejects when the service cannot start. */
export const serve = async (config: Config, log: Log, signal: AbortSignal): Promise<void> => {
	// Imported where it is needed, so that other commands start without it.
	const { startApp } = await import('../app.js');
	const app = await startApp({ config, log });
	try {
		process.stdout.write(`turbocast: ${app.address.url}\n`);
		await app.ready(signal);
		process.stdout.write(`turbocast: ready. Open ${app.address.url} and type a prompt. Ctrl-C stops.\n`);
		await new Promise<void>((resolve) => {
			if (signal.aborted) {
				resolve();
			}
			signal.addEventListener('abort', () => resolve(), { once: true });
		});
		if (signal.reason instanceof Interruption && signal.reason.signal === 'SIGTERM') {
			await app.drain(config.server.drain_ms);
		}
	} finally {
		await app.close();
	}
};
