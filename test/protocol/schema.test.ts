import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TurbocastError } from '../../src/protocol/errors.js';
import { boolean, described, integer, list, literal, nullable, number, object, oneOf, optional, record, string, withDefault } from '../../src/protocol/schema.js';

const messageOf = (parse: () => unknown): string => {
	try {
		parse();
	} catch (error) {
		assert.ok(error instanceof TurbocastError);
		return error.message;
	}
	return assert.fail('accepted');
};

test('a mistake deep inside is named by its dotted path', () => {
	const schema = object({ servers: list(object({ urls: list(string({ max: 10 }), { max: 2 }) }), { max: 4 }) });
	const error = (() => {
		try {
			return schema.parse({ servers: [{ urls: ['a'] }, { urls: ['b', 7] }] });
		} catch (caught) {
			return caught;
		}
	})();
	assert.ok(error instanceof TurbocastError);
	assert.equal(error.param, 'servers.1.urls.1');
	assert.equal(error.message, '`servers.1.urls.1` must be text, not number.');
});

test('numbers have inclusive bounds, and NaN and infinities are none', () => {
	const schema = number({ min: -1, max: 1 });
	assert.equal(schema.parse(-1), -1);
	assert.equal(schema.parse(1), 1);
	for (const value of [1.0001, -1.0001, Number.NaN, Number.POSITIVE_INFINITY, '1', null, true]) {
		assert.throws(() => schema.parse(value), TurbocastError);
	}
	assert.throws(() => integer({ min: 0, max: 9 }).parse(0.5), /whole number/u);
});

test('text is counted in UTF-16 units and must be well-formed', () => {
	const schema = string({ min: 2, max: 4 });
	assert.equal(schema.parse('😀😀'), '😀😀');
	assert.throws(() => schema.parse('😀😀x'), /at most 4 characters, not 5/u);
	assert.throws(() => schema.parse('x'), /at least 2/u);
	assert.throws(() => schema.parse('x\udc00'), /surrogate/u);
});

test('lists and records have bounds', () => {
	assert.throws(() => list(boolean(), { min: 1, max: 2 }).parse([]), /from 1 to 2 items, not 0/u);
	assert.throws(() => list(boolean(), { max: 2 }).parse([true, true, true]), /not 3/u);
	assert.throws(() => list(boolean(), { max: 2 }).parse({ length: 1 }), /must be a list, not an object/u);
	assert.deepEqual(record(boolean(), { max: 1 }).parse({ a: true }), { a: true });
	assert.throws(() => record(boolean(), { max: 1 }).parse({ a: true, b: true }), /at most 1 entries/u);
	assert.throws(() => record(boolean(), { max: 1 }).parse({ a: 1 }), /`a` must be true or false/u);
});

test('a key called __proto__ in a record changes nobody', () => {
	const parsed = record(number({ min: 0, max: 9 }), { max: 4 }).parse(JSON.parse('{"__proto__": 5}'));
	assert.equal(Object.getPrototypeOf(parsed), Object.prototype);
	assert.equal(Object.hasOwn({}, 'polluted'), false);
});

test('optional, nullable and default fields', () => {
	const schema = object({ a: optional(boolean()), b: nullable(boolean()), c: withDefault(integer({ min: 0, max: 9 }), 5), d: oneOf(['x', 2]), e: literal('z') });
	assert.deepEqual(schema.parse({ b: null, d: 2, e: 'z', more: 1 }), { b: null, c: 5, d: 2, e: 'z' });
	assert.match(messageOf(() => schema.parse({ b: null, d: 'y', e: 'z' })), /`d` must be one of "x", 2/u);
	assert.match(messageOf(() => schema.parse({ d: 2, e: 'z' })), /`b` is missing/u);
	assert.match(messageOf(() => schema.parse({ a: null, b: null, d: 2, e: 'z' })), /`a` must be true or false, not null/u);
	assert.match(messageOf(() => schema.parse({ b: null, d: 2, e: 'Z' })), /`e` must be "z"/u);
});

test('a strict object refuses unknown keys and says which are known', () => {
	assert.match(messageOf(() => object({ port: integer({ min: 0, max: 9 }) }, 'refuse').parse({ prot: 1 })), /`prot` is not a known key; known here: port/u);
});

test('a schema describes itself as JSON Schema', () => {
	const schema = object({ size: described(string({ min: 1, max: 5, pattern: /^x/u }), 'how big'), steps: withDefault(oneOf([1, 2]), 1), more: optional(boolean()) }, 'refuse');
	assert.deepEqual(schema.json, {
		type: 'object',
		properties: { size: { type: 'string', minLength: 1, maxLength: 5, pattern: '^x', description: 'how big' }, steps: { enum: [1, 2], default: 1 }, more: { type: 'boolean' } },
		required: ['size'],
		additionalProperties: false,
	});
});
