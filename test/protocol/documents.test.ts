import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
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

for (const [title, schemas] of [
	['Client to server', CLIENT_SCHEMAS], ['Server to client', SERVER_SCHEMAS], ['The telemetry channel', { 'frame.meta': FRAME_META }],
] as const) {
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
