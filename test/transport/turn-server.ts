/**
 * As much of a TURN server (RFC 8656 section 7, over UDP) as an allocation takes: it asks for credentials, checks them against its secret as coturn does
 * with use-auth-secret, and gives an address. It relays nothing.
 */
import { createHash, createHmac } from 'node:crypto';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { classes, Message, methods, parseMessage } from 'werift';

const REALM = 'turbocast.test';
const NONCE = Buffer.from('nonce of the test');

/** `wallMs`: what its clock says; names that have expired are refused. */
export const startTurnServer = async (secret: string, wallMs: () => number = Date.now): Promise<{ readonly url: string } & AsyncDisposable> => {
	const socket = createSocket('udp4');
	const answer = (data: Buffer, request: Message, from: RemoteInfo): void => {
		const refuse = (code: number, phrase: string): void => {
			const refusal = new Message(request.messageMethod, classes.ERROR, request.transactionId);
			refusal.setAttribute('ERROR-CODE', [code, phrase]).setAttribute('REALM', REALM).setAttribute('NONCE', NONCE);
			socket.send(refusal.bytes, from.port, from.address);
		};
		if (request.messageMethod === methods.BINDING) {
			const told = new Message(methods.BINDING, classes.RESPONSE, request.transactionId);
			socket.send(told.setAttribute('XOR-MAPPED-ADDRESS', [from.address, from.port]).bytes, from.port, from.address);
			return;
		}
		const name = request.getAttributeValue('USERNAME') as string | undefined;
		if (name === undefined) {
			refuse(401, 'Unauthorized');
			return;
		}
		const password = createHmac('sha1', secret).update(name).digest('base64');
		const key = createHash('md5').update(`${name}:${REALM}:${password}`).digest();
		const isKnown = parseMessage(data, key) !== undefined;
		if (!isKnown || Number.parseInt(name, 10) * 1000 < wallMs()) {
			refuse(401, 'Unauthorized');
			return;
		}
		const success = new Message(request.messageMethod, classes.RESPONSE, request.transactionId);
		success.setAttribute('LIFETIME', request.messageMethod === methods.ALLOCATE ? 600 : 0);
		if (request.messageMethod === methods.ALLOCATE) {
			success.setAttribute('XOR-RELAYED-ADDRESS', ['127.0.0.1', 49_152]).setAttribute('XOR-MAPPED-ADDRESS', [from.address, from.port]);
		}
		success.addMessageIntegrity(key);
		socket.send(success.bytes, from.port, from.address);
	};
	socket.on('message', (data, from) => {
		const request = parseMessage(data);
		if (request?.messageClass === classes.REQUEST) {
			answer(data, request, from);
		}
	});
	socket.bind(0, '127.0.0.1');
	await once(socket, 'listening');
	return {
		url: `turn:127.0.0.1:${socket.address().port}?transport=udp`,
		[Symbol.asyncDispose]: async () => {
			socket.close();
			await once(socket, 'close');
		},
	};
};
