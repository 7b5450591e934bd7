/**
 * What is alive in a Node process, looked at from outside through its inspector: resident memory alone does not tell a leak from a heap that was not
 * collected yet. Not on Windows, where no SIGUSR1 opens the inspector.
 */
import { once } from 'node:events';
import { WebSocket } from 'ws';
import type { Served } from '../test/cli/served.js';

/** For NODE_OPTIONS of the process that is looked at: a free port for its inspector, which is closed until it is asked for. */
export const INSPECTABLE = '--inspect-port=127.0.0.1:0';

/** MB, as `process.memoryUsage` has them, after a full collection: JavaScript objects, and buffers outside their heap. */
export type HeapSizes = { readonly used: number; readonly external: number };

export type Heap = Disposable & {
	/** Collects all garbage first. */
	readonly look: () => Promise<HeapSizes>;
};

type Answer = { readonly id?: number; readonly result?: { readonly result?: { readonly value?: unknown } }; readonly error?: unknown };

/** Opens the inspector of the main process, which must run with `INSPECTABLE`. */
export const openHeap = async (service: Served): Promise<Heap> => {
	process.kill(service.pid, 'SIGUSR1');
	const [, url = ''] = await service.printed(/Debugger listening on (ws:\S+)/u);
	const socket = new WebSocket(url);
	await once(socket, 'open');
	const waiting = new Map<number, (answer: Answer) => void>();
	socket.on('message', (data: Buffer) => {
		const answer = JSON.parse(data.toString()) as Answer;
		waiting.get(answer.id ?? 0)?.(answer);
		waiting.delete(answer.id ?? 0);
	});
	let lastId = 0;
	const ask = (method: string, params: object = {}): Promise<Answer> => new Promise((resolve) => {
		lastId += 1;
		waiting.set(lastId, resolve);
		socket.send(JSON.stringify({ id: lastId, method, params }));
	});
	return {
		look: async () => {
			await ask('HeapProfiler.collectGarbage');
			const { result } = await ask('Runtime.evaluate', { expression: 'JSON.stringify(process.memoryUsage())' });
			const { heapUsed, external } = JSON.parse(String(result?.result?.value)) as NodeJS.MemoryUsage;
			return { used: heapUsed / 2 ** 20, external: external / 2 ** 20 };
		},
		[Symbol.dispose]: () => socket.close(),
	};
};
