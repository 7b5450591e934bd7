/** The video of a session in a bench: a receiver that offers itself over a control connection. */
import { Receiver } from '../test/transport/receiver.js';
import type { ControlClient } from '../test/server/control-client.js';

/** Negotiated, not connected yet; whoever calls closes it. */
export const openViewer = async (client: ControlClient): Promise<Receiver> => {
	const receiver = new Receiver('h264');
	await receiver.connection.setLocalDescription(await receiver.connection.createOffer());
	client.send({ type: 'webrtc.offer', sdp: receiver.connection.localDescription?.sdp });
	const { sdp } = await client.next('webrtc.answer');
	await receiver.connection.setRemoteDescription({ type: 'answer', sdp });
	return receiver;
};
