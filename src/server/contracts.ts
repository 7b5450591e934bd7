/** The contracts for machines: AsyncAPI 3.0 of the control socket and the telemetry channel, OpenAPI 3.1 of HTTP; both made of the schemas that parse. */
import { CLIENT_SECRET_REQUEST, CLIENT_SECRETS_PATH } from '../protocol/client-secrets.js';
import { ERROR_CODES } from '../protocol/errors.js';
import { parameters } from '../protocol/fields.js';
import { FRAGMENT_TYPE, SDP_TYPE, SESSIONS_PATH, WHEP_PATH } from '../protocol/whep.js';
import { PROTOCOL_VERSION, REALTIME_PATH, SUBPROTOCOL, TELEMETRY_LABEL } from '../protocol/limits.js';
import { PUBLICATION_REQUEST, PUBLICATION_STATES } from '../protocol/publications.js';
import { CLIENT_SCHEMAS, FRAME_META, SERVER_SCHEMAS } from '../protocol/messages.js';
import type { JsonSchema, Schema } from '../protocol/schema.js';

export const ASYNCAPI_PATH = '/asyncapi.json';
export const OPENAPI_PATH = '/openapi.json';

const INFO = { title: 'turbocast', version: PROTOCOL_VERSION, license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' } } as const;

type Messages = { readonly [type: string]: Schema<unknown> };

/** Names of a direction apart from the other's: `webrtc.candidate` goes both ways. */
const named = (direction: string, messages: Messages): [key: string, type: string, payload: JsonSchema][] =>
	Object.entries(messages).map(([type, { json }]) => [`${direction}.${type}`, type, json]);

const refs = (keys: readonly string[], to: (key: string) => string): object[] => keys.map((key) => ({ $ref: to(key) }));

/** https://www.asyncapi.com/docs/reference/specification/v3.0.0; seen from the server: it receives what clients send. */
export const asyncApi = (): object => {
	const fromClient = named('client', CLIENT_SCHEMAS);
	const fromServer = named('server', SERVER_SCHEMAS);
	const telemetry = named('telemetry', { 'frame.meta': FRAME_META });
	const channel = (messages: readonly (readonly [string, ...unknown[]])[]): object =>
		Object.fromEntries(messages.map(([key]) => [key, { $ref: `#/components/messages/${key}` }]));
	const inChannel = (name: string) => (key: string): string => `#/channels/${name}/messages/${key}`;
	return {
		asyncapi: '3.0.0',
		info: INFO,
		defaultContentType: 'application/json',
		channels: {
			control: {
				address: REALTIME_PATH,
				description: `WebSocket, sub-protocol ${SUBPROTOCOL}; JSON objects in text frames. Unknown fields are ignored.`,
				messages: channel([...fromClient, ...fromServer]),
				bindings: { ws: {} },
			},
			telemetry: { address: TELEMETRY_LABEL, description: 'WebRTC data channel of that label, unordered, without retransmission.', messages: channel(telemetry) },
		},
		operations: {
			receive: { action: 'receive', channel: { $ref: '#/channels/control' }, messages: refs(fromClient.map(([key]) => key), inChannel('control')) },
			send: { action: 'send', channel: { $ref: '#/channels/control' }, messages: refs(fromServer.map(([key]) => key), inChannel('control')) },
			sendTelemetry: { action: 'send', channel: { $ref: '#/channels/telemetry' }, messages: refs(telemetry.map(([key]) => key), inChannel('telemetry')) },
		},
		components: { messages: Object.fromEntries([...fromClient, ...fromServer, ...telemetry].map(([key, name, payload]) => [key, { name, payload }])) },
	};
};

const ERROR_ENVELOPE: JsonSchema = {
	type: 'object', required: ['error'],
	properties: {
		error: {
			type: 'object', required: ['type', 'code', 'message', 'param'],
			properties: { type: { type: 'string' }, code: { enum: ERROR_CODES }, message: { type: 'string' }, param: { type: ['string', 'null'] } },
		},
	},
};

const json = (schema: JsonSchema): object => ({ 'application/json': { schema } });
const errors = (...statuses: readonly number[]): object =>
	Object.fromEntries(statuses.map((status) => [String(status), { $ref: '#/components/responses/Error' }]));
const KEY = [{ serverKey: [] }, {}] as const;
/** A server key, or a client secret. */
const CREDENTIAL = [{ serverKey: [] }, { clientSecret: [] }, {}] as const;
const sdp = { [SDP_TYPE]: { schema: { type: 'string' } } } as const;
const fragment = { [FRAGMENT_TYPE]: { schema: { type: 'string' } } } as const;
const header = (description: string): object => ({ description, schema: { type: 'string' } });
const inPath = (name: string): object => ({ name, in: 'path', required: true, schema: { type: 'string' } });

/** draft-ietf-wish-whep-04. */
const whep = (summary: string, asked: readonly object[]): object => ({
	post: {
		summary, security: CREDENTIAL, parameters: asked, requestBody: { required: true, content: sdp },
		responses: {
			201: {
				description: 'The answer, with all candidates.', content: sdp,
				headers: { 'Location': header('Address of the player.'), 'ETag': header('Its ICE session.'), 'Link': header('STUN and TURN servers, rel="ice-server".'), 'Session-Id': header('What it watches.') },
			},
			...errors(400, 401, 403, 404, 406, 413, 415, 422, 429, 503),
		},
	},
});

const whepPaths = (): object => {
	const { prompt, model, size, seed } = CLIENT_SCHEMAS['session.start'].shape;
	const inQuery = { prompt, model, size, seed, steps: parameters.shape.steps };
	return {
		[WHEP_PATH]: whep('The video of a session of its own, or of the one that the credential is for.', Object.entries(inQuery).map(([name, { json: schema }]) => ({ name, in: 'query', schema }))),
		[`${SESSIONS_PATH}/{id}/whep`]: whep('The video of a session that is there.', [inPath('id')]),
		[`${WHEP_PATH}/{player}`]: {
			patch: {
				summary: 'More candidates, or an ICE restart.', security: CREDENTIAL,
				parameters: [inPath('player'), { name: 'If-Match', in: 'header', required: true, schema: { type: 'string' } }], requestBody: { required: true, content: fragment },
				responses: { 200: { description: 'Restarted.', content: fragment, headers: { ETag: header('The new ICE session.') } }, 204: { description: 'Taken.' }, ...errors(400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 429) },
			},
			delete: { summary: 'The player leaves.', security: CREDENTIAL, parameters: [inPath('player')], responses: { 200: { description: 'It has left.' }, ...errors(401, 403, 404) } },
		},
	};
};

const recordingPath = (): object => ({
	[`${SESSIONS_PATH}/{id}/recording.mp4`]: {
		get: {
			summary: 'The last minutes of a running session, as they were sent.', security: CREDENTIAL,
			parameters: [inPath('id'), ...['from_ms', 'to_ms', 'last_ms'].map((name) => ({ name, in: 'query', schema: { type: 'number', minimum: 0 } }))],
			responses: {
				200: { description: 'The file.', content: { 'video/mp4': {} }, headers: { 'Recording-From-Ms': header('Media time of its first picture.') } },
				...errors(400, 401, 403, 404, 409, 501),
			},
		},
	},
});

const PUBLICATION: JsonSchema = {
	type: 'object', required: ['object', 'id', 'session_id', 'url', 'state', 'codec', 'bandwidth_bps', 'connections', 'ice_restarts', 'error'],
	properties: {
		object: { const: 'publication' }, id: { type: 'string' }, session_id: { type: 'string' }, url: { type: 'string' }, state: { enum: [...PUBLICATION_STATES] },
		codec: { type: ['string', 'null'] }, bandwidth_bps: { type: ['integer', 'null'] }, connections: { type: 'integer' }, ice_restarts: { type: 'integer' }, error: { type: ['object', 'null'] },
	},
};

/** The client's side of RFC 9725. */
const publicationPaths = (): object => {
	const path = `${SESSIONS_PATH}/{id}/publications`;
	const one = [inPath('id'), inPath('publication')];
	const answered = (description: string): object => ({ 200: { description, content: json(PUBLICATION) }, ...errors(401, 403, 404) });
	return {
		[path]: {
			post: {
				summary: 'Sends a running session to a WHIP endpoint.', security: CREDENTIAL, parameters: [inPath('id')], requestBody: { required: true, content: json(PUBLICATION_REQUEST.json) },
				responses: { 201: { description: 'The endpoint has answered.', content: json(PUBLICATION), headers: { Location: header('Address of the publication.') } }, ...errors(400, 401, 403, 404, 409, 413, 429, 501, 502, 503) },
			},
			get: {
				summary: 'The publications of a session.', security: CREDENTIAL, parameters: [inPath('id')],
				responses: { 200: { description: 'A list.', content: json({ type: 'object', properties: { object: { const: 'list' }, data: { type: 'array', items: PUBLICATION } } }) }, ...errors(401, 403, 404) },
			},
		},
		[`${path}/{publication}`]: {
			get: { summary: 'One publication.', security: CREDENTIAL, parameters: one, responses: answered('The publication.') },
			delete: { summary: 'Ends it, and tells the endpoint.', security: CREDENTIAL, parameters: one, responses: answered('It has ended.') },
		},
	};
};

/** https://spec.openapis.org/oas/v3.1.0 */
export const openApi = (): object => {
	const model = SERVER_SCHEMAS['session.created'].shape.model.json;
	return {
		openapi: '3.1.0',
		info: INFO,
		paths: {
			'/healthz': { get: { summary: 'Whether the process runs and its engine is not given up.', responses: { 200: { description: 'It does.' }, ...errors(503) } } },
			'/readyz': { get: { summary: 'Whether a session would be taken.', responses: { 200: { description: 'It would.' }, ...errors(503) } } },
			'/metrics': { get: { summary: 'Prometheus text.', security: KEY, responses: { 200: { description: 'Metrics.', content: { 'text/plain': {} } }, ...errors(401, 403) } } },
			'/v1/models': {
				get: {
					summary: 'The models that run here.', security: KEY,
					responses: { 200: { description: 'A list.', content: json({ type: 'object', properties: { object: { const: 'list' }, data: { type: 'array', items: model } } }) }, ...errors(401, 403) },
				},
			},
			'/v1/models/{id}': {
				get: {
					summary: 'One model.', security: KEY, parameters: [{ name: 'id', in: 'path', required: true, schema: { type: 'string' } }],
					responses: { 200: { description: 'The model.', content: json(model) }, ...errors(401, 403, 404) },
				},
			},
			...whepPaths(),
			...recordingPath(),
			...publicationPaths(),
			[CLIENT_SECRETS_PATH]: {
				post: {
					summary: 'A client secret for a page.', security: [{ serverKey: [] }], requestBody: { content: json(CLIENT_SECRET_REQUEST.json) },
					responses: {
						200: {
							description: 'The secret, shown this once.',
							content: json({ type: 'object', required: ['value', 'expires_at'], properties: { value: { type: 'string' }, expires_at: { type: 'integer' }, session_id: { type: 'string' }, permissions: { type: 'object' }, constraints: { type: 'object' } } }),
						},
						...errors(400, 401, 403, 404, 413, 429),
					},
				},
			},
		},
		components: {
			securitySchemes: { serverKey: { type: 'http', scheme: 'bearer' }, clientSecret: { type: 'http', scheme: 'bearer' } },
			responses: { Error: { description: 'What went wrong.', content: json(ERROR_ENVELOPE) } },
		},
	};
};
