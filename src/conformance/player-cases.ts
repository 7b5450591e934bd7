/** Cases of whoever comes by HTTP alone: players (WHEP) and recordings. */
import { WHEP_PATH } from '../protocol/whep.js';
import { offerSdp } from './offer-sdp.js';
import { casesOf, type ServerCase, type Subject } from './server-case.js';
import { ensureEnvelope } from './service-cases.js';
import { ensure, ensureEqual, skip } from './verdict.js';

const PLAY = `${WHEP_PATH}?prompt=a%20cat%20jumps`;
const WATCHED_PICTURES = 8;

type Request = { readonly method?: string; readonly token?: string | undefined; readonly type?: string; readonly body?: string };

const ask = (subject: Subject, path: string, { method = 'GET', token = subject.token, type, body }: Request = {}): Promise<Response> => fetch(new URL(path, subject.httpUrl), {
	method, signal: AbortSignal.timeout(subject.patienceMs), ...(body === undefined ? {} : { body }),
	headers: { ...(token === undefined ? {} : { authorization: `Bearer ${token}` }), ...(type === undefined ? {} : { 'content-type': type }) },
});

const offer = (subject: Subject, path: string, body = offerSdp(2)): Promise<Response> => ask(subject, path, { method: 'POST', type: 'application/sdp', body });

/** An answer that is an error of this code; a server that has no place says so first. */
const ensureError = async (response: Response, status: number): Promise<void> => {
	const text = await response.text();
	if (response.status === 503 || response.status === 429) {
		return skip(`no place for a session: ${text}`);
	}
	ensureEqual(response.status, status, 'the status');
	ensureEnvelope(JSON.parse(text), status);
};

export const PLAYER_CASES: readonly ServerCase[] = casesOf('HTTP', {
	'a player comes by WHEP, is answered with video, and goes by DELETE': async (subject) => {
		const answer = await offer(subject, PLAY);
		if (answer.status === 503 || answer.status === 429) {
			return skip(`no place for a session: ${await answer.text()}`);
		}
		const sdp = await answer.text();
		ensureEqual([answer.status, answer.headers.get('content-type')?.split(';')[0]], [201, 'application/sdp'], 'status and Content-Type');
		ensure(/^m=video [1-9]/mu.test(sdp) && /^a=candidate:/mu.test(sdp), 'the answer has no video, or no candidates');
		const player = answer.headers.get('location') ?? '';
		ensure(player !== '' && answer.headers.get('etag') !== null, 'the answer has no Location, or no ETag');
		ensureEqual((await ask(subject, player, { method: 'DELETE' })).status, 200, 'the status of DELETE');
		await ensureError(await ask(subject, player, { method: 'DELETE' }), 404);
	},
	'what is no offer of a player is refused, each by its own status': async (subject) => {
		await ensureError(await offer(subject, PLAY, 'v=0\r\nthis is no offer'), 400);
		await ensureError(await ask(subject, PLAY, { method: 'POST', type: 'text/plain', body: offerSdp(2) }), 415);
		await ensureError(await offer(subject, `${WHEP_PATH}?prompt=`), 400);
		await ensureError(await ask(subject, `${WHEP_PATH}/of-nobody`, { method: 'DELETE' }), 404);
	},
	'a recording is an MP4 file of what was watched': async (subject) => {
		const { connection, created } = await subject.start();
		const token = created.resume_token ?? skip('this server gives no resume_token');
		const path = `/v1/realtime/sessions/${created.session_id}/recording.mp4?last_ms=1000`;
		const before = await ask(subject, path, { token });
		if (before.status === 501) {
			return skip('this server keeps no recordings');
		}
		await ensureError(before, 409);
		await connection.answer('video.opened', connection.ask({ type: 'video.open', codecs: ['h264', 'vp8'] }));
		for (let count = 0; count < WATCHED_PICTURES; count += 1) {
			connection.send({ type: 'video.ack', frame_id: (await connection.nextPicture()).unit.frameId });
		}
		const file = await ask(subject, path, { token });
		const bytes = Buffer.from(await file.arrayBuffer());
		ensureEqual([file.status, file.headers.get('content-type')], [200, 'video/mp4'], 'status and Content-Type');
		ensureEqual(bytes.subarray(4, 8).toString('latin1'), 'ftyp', 'the first box of the file');
		ensure(file.headers.get('recording-from-ms') !== null, 'the answer has no Recording-From-Ms');
		await ensureError(await ask(subject, path.replace(created.session_id, 'of-nobody'), { token }), 404);
	},
});
