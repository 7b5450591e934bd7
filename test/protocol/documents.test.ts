import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENT_SECRET_REQUEST } from '../../src/protocol/client-secrets.js';
import { ERROR_CODES, ERRORS } from '../../src/protocol/errors.js';
import { CLIENT_SCHEMAS, FRAME_META, SERVER_SCHEMAS } from '../../src/protocol/messages.js';
import type { JsonSchema } from '../../src/protocol/schema.js';
import { repositoryRoot } from '../repository.js';

const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');

test('docs/errors.md has every error code with its status, close code, retry and summary, and no other', () => {
	const rows = [...read('docs/errors.md').matchAll(/^\| `(\w+)` \| (\d+) \| (\d+) \| (yes|no) \| (.+?) \| (.+?) \|$/gmu)];
	assert.deepEqual(rows.map((row) => row[1]), ERROR_CODES);
	for (const [, code = '', status, close, again, summary, advice = ''] of rows) {
		const entry = ERRORS[code as keyof typeof ERRORS];
		assert.deepEqual(
			{ status: Number(status), close: Number(close), again, summary },
			{ status: entry.httpStatus, close: entry.closeCode, again: entry.retryable ? 'yes' : 'no', summary: entry.summary },
			code,
		);
		assert.ok(advice.length > 10, `${code} says what to do`);
	}
});

test('every code of the application range is 4000 plus its HTTP status', () => {
	for (const code of ERROR_CODES) {
		const { closeCode, httpStatus } = ERRORS[code];
		assert.ok(closeCode >= 4000 ? closeCode === 4000 + httpStatus || closeCode === 4400 : [1009, 1011, 1013].includes(closeCode), code);
	}
});

/** Dotted paths of all fields below a schema: `model.controls[].name`. Free keys of a record are not fields. */
const pathsOf = (schema: JsonSchema, prefix = ''): string[] => {
	const inner = (schema['anyOf'] as JsonSchema[] | undefined)?.[0] ?? schema;
	const items = inner['items'] as JsonSchema | undefined;
	if (items !== undefined) {
		return pathsOf(items, `${prefix}[]`);
	}
	return Object.entries((inner['properties'] ?? {}) as { [key: string]: JsonSchema }).flatMap(([key, field]) => {
		const path = prefix === '' ? key : `${prefix}.${key}`;
		return [path, ...pathsOf(field, path)];
	});
};

/** `### \`type\`` sections of a part of the page, with the fields of their tables. */
const sectionsOf = (part: string): Map<string, string[]> =>
	new Map(part.split(/^### /mu).slice(1).map((section) => {
		const type = /^`(.+?)`/u.exec(section)?.[1] ?? '';
		return [type, [...section.matchAll(/^\| `(.+?)` \|/gmu)].map((row) => row[1] ?? '')];
	}));

const parts = read('docs/protocol.md').split(/^## /mu);
const partCalled = (title: string): string => parts.find((part) => part.startsWith(title)) ?? assert.fail(`no part "${title}"`);

const PARTS = [
	['Client to server', CLIENT_SCHEMAS], ['Server to client', SERVER_SCHEMAS], ['The telemetry channel', { 'frame.meta': FRAME_META }],
] as const;

for (const [title, schemas] of PARTS) {
	test(`docs/protocol.md, "${title}": every message and field is explained, and no other`, () => {
		const documented = sectionsOf(partCalled(title));
		assert.deepEqual([...documented.keys()], Object.keys(schemas));
		for (const [type, schema] of Object.entries<{ readonly json: JsonSchema }>(schemas)) {
			assert.deepEqual(documented.get(type)?.sort(), pathsOf(schema.json).sort(), type);
		}
	});
}

test('every code that a page of the docs names in its tables exists', () => {
	const limits = partCalled('Limits');
	const named = [...limits.matchAll(/\| `(\w+)`[^|]*\|$/gmu)].map((row) => row[1] ?? '');
	assert.ok(named.length >= 10);
	assert.deepEqual(named.filter((code) => !Object.hasOwn(ERRORS, code)), []);
});

type Found = { readonly json: JsonSchema; readonly isOptional: boolean };

/** The schema behind a dotted path, and whether the field may be left out. */
const fieldAt = (schema: JsonSchema, path: string): Found =>
	path.split('.').reduce<Found>(({ json }, part) => {
		const key = part.replace('[]', '');
		const inner = (json['anyOf'] as JsonSchema[] | undefined)?.[0] ?? json;
		const field = (inner['properties'] as { [key: string]: JsonSchema })[key] ?? assert.fail(path);
		const list = (field['anyOf'] as JsonSchema[] | undefined)?.[0] ?? field;
		return { json: part.endsWith('[]') ? list['items'] as JsonSchema : field, isOptional: !(inner['required'] as string[]).includes(key) };
	}, { json: schema, isOptional: false });

const NUMBERS = /^(whole number|number|pixels|bytes|characters|90 kHz|s|\d+ to \d+)$/u;

/** What the second column of a field may say, by its schema. */
const typeOf = (name: string, { json, isOptional }: Found): RegExp => {
	const inner = (json['anyOf'] as JsonSchema[] | undefined)?.[0] ?? json;
	const values = (inner['enum'] ?? (inner['const'] === undefined ? undefined : [inner['const']])) as (string | number)[] | undefined;
	const isNumber = inner['type'] === 'number' || inner['type'] === 'integer' || typeof values?.[0] === 'number';
	const words = name.endsWith('_ms') ? 'ms'
		: isNumber ? NUMBERS.source.slice(1, -1)
			: values !== undefined ? `text|${values.map((value) => `\`${value}\``).join('(?:, | or )')}`
				: { string: 'text', boolean: 'true or false', array: 'list(?: of .+)?', object: 'object(?: of numbers)?' }[String(inner['type'])] ?? assert.fail(name);
	return new RegExp(`^(?:${words})${json['anyOf'] === undefined ? '' : ' or null'}${isOptional ? ', optional' : ''}$`, 'u');
};

for (const [title, schemas] of PARTS) {
	test(`docs/protocol.md, "${title}": each field has its type and unit, and says when it may be left out`, () => {
		const wrong: string[] = [];
		for (const section of partCalled(title).split(/^### /mu).slice(1)) {
			const type = /^`(.+?)`/u.exec(section)?.[1] ?? '';
			for (const [, path = '', says = ''] of section.matchAll(/^\| `(.+?)` \| (.*?) \|/gmu)) {
				const found = fieldAt((schemas as { [type: string]: { json: JsonSchema } })[type]?.json ?? assert.fail(type), path);
				const expected = typeOf(path.split('.').at(-1) ?? '', found);
				if (!expected.test(says)) {
					wrong.push(`${type}: ${path} is "${says}", not ${expected.source}`);
				}
			}
		}
		assert.deepEqual(wrong, []);
	});
}

test('every name in docs/protocol.md is that of a field, a value or an error code', () => {
	const schemas = [...PARTS.flatMap(([, part]) => Object.values<{ readonly json: JsonSchema }>(part)), CLIENT_SECRET_REQUEST].map(({ json }) => json);
	const texts = JSON.stringify(schemas);
	const known = new Set([...texts.matchAll(/"([a-z0-9_]+)"/gu)].map(([, word]) => word));
	// Of HTTP addresses and answers, and of the configuration.
	['value', 'expires_at', 'from_ms'].forEach((word) => known.add(word));
	const named = new Set([...read('docs/protocol.md').matchAll(/`([a-z]+(?:_[a-z0-9]+)+)`/gu)].map(([, word = '']) => word));
	assert.ok(named.size > 40);
	assert.deepEqual([...named].filter((word) => !known.has(word) && !Object.hasOwn(ERRORS, word)), []);
});
