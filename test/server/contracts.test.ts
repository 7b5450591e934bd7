import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import asyncApiSpecs from '@asyncapi/specs';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv, type AnySchema } from 'ajv';
import { CLIENT_SECRETS_PATH } from '../../src/protocol/client-secrets.js';
import { CLIENT_SCHEMAS, FRAME_META, SERVER_SCHEMAS } from '../../src/protocol/messages.js';
import { WHEP_PATH } from '../../src/protocol/whep.js';
import { asyncApi, openApi } from '../../src/server/contracts.js';
import { startMachine, startService, type Machine } from './service.js';

let machine: Machine & AsyncDisposable;
before(async () => {
	machine = await startMachine();
});
after(() => machine[Symbol.asyncDispose]());

type Tree = { readonly [key: string]: unknown };

/** As it goes over the wire. */
const wire = (document: object): Tree => JSON.parse(JSON.stringify(document)) as Tree;

const refsIn = (value: unknown): string[] => {
	if (typeof value !== 'object' || value === null) {
		return [];
	}
	return Object.entries(value).flatMap(([key, entry]) => (key === '$ref' ? [String(entry)] : refsIn(entry)));
};

/** Follows `#/a/b` (RFC 6901). */
const resolve = (document: Tree, pointer: string): unknown =>
	pointer.slice(2).split('/').reduce<unknown>((value, key) => (value as Tree | undefined)?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], document);

for (const [name, document] of [['asyncapi', wire(asyncApi())], ['openapi', wire(openApi())]] as const) {
	test(`every reference of ${name}.json leads somewhere`, () => {
		const refs = refsIn(document);
		assert.ok(refs.length > 5);
		assert.deepEqual(refs.filter((ref) => resolve(document, ref) === undefined), []);
	});
}

test('asyncapi.json has every message of both directions with the schema that parses it, and no other', () => {
	const { messages } = wire(asyncApi())['components'] as { messages: { [key: string]: { name: string; payload: unknown } } };
	const expected = [
		...Object.entries(CLIENT_SCHEMAS).map(([type, { json }]) => [`client.${type}`, type, json]),
		...Object.entries(SERVER_SCHEMAS).map(([type, { json }]) => [`server.${type}`, type, json]),
		['telemetry.frame.meta', 'frame.meta', FRAME_META.json],
	];
	assert.deepEqual(Object.entries(messages).map(([key, { name, payload }]) => [key, name, payload]), wire(expected));
});

/** Against the schema that the AsyncAPI project publishes, each schema of a message within it included. */
const asyncApiErrors = (document: object): string[] => {
	const validate = new Ajv({ strict: false, validateFormats: false, allErrors: true }).compile(asyncApiSpecs.schemasWithoutId['3.0.0'] as AnySchema);
	return validate(document) ? [] : (validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message ?? ''}`);
};

test('asyncapi.json is valid AsyncAPI 3.0', () => {
	const document = wire(asyncApi());
	assert.equal(document['asyncapi'], '3.0.0');
	assert.deepEqual(asyncApiErrors(document), []);
	assert.ok(asyncApiErrors({ ...document, channels: { control: { messages: 'all' } } }).length > 0, 'a channel whose messages are no list is noticed');
});

test('openapi.json is valid OpenAPI 3.1', async () => {
	const document = wire(openApi());
	const { valid, errors } = await new Validator().validate(structuredClone(document));
	assert.deepEqual([valid, errors], [true, undefined]);
	const paths = { ...(document['paths'] as Tree), '/healthz': { get: { responses: { 200: {} } } } };
	assert.equal((await new Validator().validate({ ...structuredClone(document), paths })).valid, false, 'an answer without a description is noticed');
});

test('the schemas of all messages are valid JSON Schema', () => {
	const ajv = new Ajv({ strict: true, allowUnionTypes: true });
	for (const { json } of [...Object.values(CLIENT_SCHEMAS), ...Object.values(SERVER_SCHEMAS), FRAME_META]) {
		assert.equal(ajv.validateSchema(json), true, JSON.stringify(ajv.errors));
		ajv.compile(json);
	}
});

test('openapi.json has the addresses of the API', () => {
	assert.deepEqual(Object.keys(wire(openApi())['paths'] as Tree), ['/healthz', '/readyz', '/metrics', '/v1/models', '/v1/models/{id}', WHEP_PATH, '/v1/realtime/sessions/{id}/whep', `${WHEP_PATH}/{player}`, '/v1/realtime/sessions/{id}/recording.mp4', '/v1/realtime/sessions/{id}/publications', '/v1/realtime/sessions/{id}/publications/{publication}', CLIENT_SECRETS_PATH]);
});

test('both are served as they are', async () => {
	await using service = await startService(machine);
	for (const [path, document] of [['asyncapi.json', asyncApi()], ['openapi.json', openApi()]] as const) {
		const response = await fetch(`${service.url}${path}`);
		assert.equal(response.status, 200);
		assert.deepEqual(await response.json(), wire(document));
	}
});
