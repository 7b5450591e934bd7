/**
 * Small typed schemas: one declaration gives a parser for `unknown`, a TypeScript type and a JSON Schema. They describe
 * the protocol's messages and the configuration. Kept here rather than taken from a library because `protocol/` is loaded
 * by browsers as it is, without a bundler.
 */
import { TurbocastError, type ErrorCode } from './errors.js';

export type JsonSchema = { readonly [key: string]: unknown };

export type Schema<T> = {
	/** Returns the value as `T`, or throws a `TurbocastError` that names `path`. Never returns an unchecked object. */
	readonly parse: (value: unknown, path?: string) => T;
	readonly json: JsonSchema;
	/** Set on fields that may be left out. */
	readonly isOptional?: true;
	/** The value of a left-out field. */
	readonly fallback?: T;
};

export type Infer<S> = S extends Schema<infer T> ? T : never;

type Shape = { readonly [key: string]: Schema<unknown> };
type OptionalKeys<S extends Shape> = { [K in keyof S]: undefined extends Infer<S[K]> ? K : never }[keyof S];
type Simplify<T> = { [K in keyof T]: T[K] };
export type ObjectOf<S extends Shape> = Simplify<
	{ -readonly [K in Exclude<keyof S, OptionalKeys<S>>]: Infer<S[K]> } & { -readonly [K in OptionalKeys<S>]?: Exclude<Infer<S[K]>, undefined> }
>;

const describe = (value: unknown): string =>
	value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'an object' : `${typeof value}`;

const fail = (path: string, sentence: string, code: ErrorCode = 'invalid_request'): never => {
	throw new TurbocastError(code, `${path === '' ? 'The value' : `\`${path}\``} ${sentence}.`, { param: path });
};

const join = (path: string, key: string | number): string => (path === '' ? String(key) : `${path}.${key}`);

export const string = (limits: { min?: number; max: number; pattern?: RegExp; says?: string; code?: ErrorCode }): Schema<string> => ({
	parse: (value, path = '') => {
		const { min = 0, max, pattern, says = 'has the wrong form', code = 'invalid_request' } = limits;
		if (typeof value !== 'string') {
			return fail(path, `must be text, not ${describe(value)}`, code);
		}
		if (!value.isWellFormed()) {
			return fail(path, 'must be valid Unicode text (it has an unpaired surrogate)', code);
		}
		if (value.length < min) {
			return fail(path, min === 1 ? 'must not be empty' : `must have at least ${min} characters`, code);
		}
		if (value.length > max) {
			return fail(path, `must have at most ${max} characters, not ${value.length}`, code);
		}
		if (pattern !== undefined && !pattern.test(value)) {
			return fail(path, says, code);
		}
		return value;
	},
	json: {
		type: 'string',
		...(limits.min === undefined ? {} : { minLength: limits.min }),
		maxLength: limits.max,
		...(limits.pattern === undefined ? {} : { pattern: limits.pattern.source }),
	},
});

export const number = (limits: { min: number; max: number; integer?: boolean }): Schema<number> => ({
	parse: (value, path = '') => {
		const { min, max, integer = false } = limits;
		if (typeof value !== 'number' || !Number.isFinite(value)) {
			return fail(path, `must be a number, not ${describe(value)}`);
		}
		if (integer && !Number.isInteger(value)) {
			return fail(path, `must be a whole number, not ${value}`);
		}
		if (value < min || value > max) {
			return fail(path, `must be from ${min} to ${max}, not ${value}`);
		}
		return value;
	},
	json: { type: limits.integer === true ? 'integer' : 'number', minimum: limits.min, maximum: limits.max },
});

export const integer = (limits: { min: number; max: number }): Schema<number> => number({ ...limits, integer: true });

export const boolean = (): Schema<boolean> => ({
	parse: (value, path = '') => (typeof value === 'boolean' ? value : fail(path, `must be true or false, not ${describe(value)}`)),
	json: { type: 'boolean' },
});

export const literal = <const T extends string | number | boolean>(expected: T): Schema<T> => ({
	parse: (value, path = '') => (value === expected ? expected : fail(path, `must be ${JSON.stringify(expected)}`)),
	json: { const: expected },
});

export const oneOf = <const T extends readonly (string | number)[]>(values: T): Schema<T[number]> => ({
	parse: (value, path = '') =>
		values.includes(value as T[number])
			? (value as T[number])
			: fail(path, `must be one of ${values.map((entry) => JSON.stringify(entry)).join(', ')}`),
	json: { enum: values },
});

export const list = <T>(item: Schema<T>, limits: { min?: number; max: number }): Schema<T[]> => ({
	parse: (value, path = '') => {
		if (!Array.isArray(value)) {
			return fail(path, `must be a list, not ${describe(value)}`);
		}
		const { min = 0, max } = limits;
		if (value.length < min || value.length > max) {
			return fail(path, `must have from ${min} to ${max} items, not ${value.length}`);
		}
		return value.map((entry: unknown, index) => item.parse(entry, join(path, index)));
	},
	json: { type: 'array', items: item.json, minItems: limits.min ?? 0, maxItems: limits.max },
});

export const optional = <T>(inner: Schema<T>): Schema<T | undefined> => ({
	parse: (value, path) => (value === undefined ? undefined : inner.parse(value, path)),
	json: inner.json,
	isOptional: true,
});

export const nullable = <T>(inner: Schema<T>): Schema<T | null> => ({
	parse: (value, path) => (value === null ? null : inner.parse(value, path)),
	json: { anyOf: [inner.json, { type: 'null' }] },
});

export const withDefault = <T>(inner: Schema<T>, fallback: T): Schema<T> => ({
	parse: (value, path) => (value === undefined ? fallback : inner.parse(value, path)),
	json: { ...inner.json, default: fallback },
	fallback,
});

export const described = <T>(inner: Schema<T>, description: string): Schema<T> => ({
	...inner,
	json: { ...inner.json, description },
});

/** Any JSON value, unchecked: only for what is echoed or ignored. */
export const anything = (): Schema<unknown> => ({ parse: (value) => value, json: {} });

/** A map with free keys. */
export const record = <T>(item: Schema<T>, limits: { max: number }): Schema<Record<string, T>> => ({
	parse: (value, path = '') => {
		if (typeof value !== 'object' || value === null || Array.isArray(value)) {
			return fail(path, `must be an object, not ${describe(value)}`);
		}
		const entries = Object.entries(value);
		if (entries.length > limits.max) {
			return fail(path, `must have at most ${limits.max} entries, not ${entries.length}`);
		}
		return Object.fromEntries(entries.map(([key, entry]) => [key, item.parse(entry, join(path, key))]));
	},
	json: { type: 'object', additionalProperties: item.json, maxProperties: limits.max },
});

/**
 * An object with these fields. Unknown fields are left out (`'ignore'`, the protocol's rule, so that a newer peer can say
 * more) or refused (`'refuse'`, the configuration's rule, so that a typing mistake is seen).
 */
export const object = <const S extends Shape>(shape: S, unknownFields: 'ignore' | 'refuse' = 'ignore'): Schema<ObjectOf<S>> & { readonly shape: S } => ({
	shape,
	parse: (value, path = '') => {
		if (typeof value !== 'object' || value === null || Array.isArray(value)) {
			return fail(path, `must be an object, not ${describe(value)}`);
		}
		const input = value as Record<string, unknown>;
		if (unknownFields === 'refuse') {
			for (const key of Object.keys(input)) {
				if (!Object.hasOwn(shape, key)) {
					fail(join(path, key), `is not a known key; known here: ${Object.keys(shape).join(', ')}`);
				}
			}
		}
		const output: Record<string, unknown> = {};
		for (const [key, field] of Object.entries(shape)) {
			const entry = Object.hasOwn(input, key) ? input[key] : undefined;
			if (entry === undefined && field.isOptional === undefined && !('fallback' in field)) {
				fail(join(path, key), 'is missing');
			}
			const parsed = field.parse(entry, join(path, key));
			if (parsed !== undefined) {
				output[key] = parsed;
			}
		}
		return output as ObjectOf<S>;
	},
	json: {
		type: 'object',
		properties: Object.fromEntries(Object.entries(shape).map(([key, field]) => [key, field.json])),
		required: Object.entries(shape).filter(([, field]) => field.isOptional === undefined && !('fallback' in field)).map(([key]) => key),
		...(unknownFields === 'refuse' ? { additionalProperties: false } : {}),
	},
});
