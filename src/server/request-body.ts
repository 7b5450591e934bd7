/** The body of an HTTP request, bounded. */
import type { IncomingMessage } from 'node:http';
import { TurbocastError } from '../protocol/errors.js';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Throws `message_too_big`, or `invalid_message` for what is not UTF-8. */
export const readText = async (request: IncomingMessage, maxBytes: number): Promise<string> => {
	const parts: Buffer[] = [];
	let size = 0;
	for await (const part of request as AsyncIterable<Buffer>) {
		size += part.length;
		if (size > maxBytes) {
			throw new TurbocastError('message_too_big', `The body may have at most ${maxBytes} bytes.`);
		}
		parts.push(part);
	}
	try {
		return utf8.decode(Buffer.concat(parts));
	} catch (error) {
		throw new TurbocastError('invalid_message', 'The body is not valid UTF-8 text.', { cause: error });
	}
};

/** No body is an empty object. Throws `message_too_big` or `invalid_message`. */
export const readJson = async (request: IncomingMessage, maxBytes: number): Promise<unknown> => {
	const text = await readText(request, maxBytes);
	if (text === '') {
		return {};
	}
	try {
		return JSON.parse(text) as unknown;
	} catch (error) {
		throw new TurbocastError('invalid_message', 'The body is not valid JSON.', { cause: error });
	}
};

/** The body as text. Throws `unsupported_media_type` for another type than this, `message_too_big` or `invalid_message`. */
export const readTextOf = async (request: IncomingMessage, contentType: string, maxBytes: number): Promise<string> => {
	const given = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
	if (given !== contentType) {
		throw new TurbocastError('unsupported_media_type', `The body must be ${contentType}${given === undefined ? '' : `, not ${given.slice(0, 100)}`}.`);
	}
	return readText(request, maxBytes);
};
