/** The JSON body of an HTTP request, bounded. */
import type { IncomingMessage } from 'node:http';
import { TurbocastError } from '../protocol/errors.js';

/** No body is an empty object. Throws `message_too_big` or `invalid_message`. */
export const readJsonBody = async (request: IncomingMessage, maxBytes: number): Promise<unknown> => {
	const parts: Buffer[] = [];
	let size = 0;
	for await (const part of request as AsyncIterable<Buffer>) {
		size += part.length;
		if (size > maxBytes) {
			throw new TurbocastError('message_too_big', `The body may have at most ${maxBytes} bytes.`);
		}
		parts.push(part);
	}
	if (size === 0) {
		return {};
	}
	try {
		return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts))) as unknown;
	} catch (error) {
		throw new TurbocastError('invalid_message', 'The body is not valid JSON.', { cause: error });
	}
};
