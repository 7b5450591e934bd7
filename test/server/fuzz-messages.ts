/**
 * Frames that a broken or hostile client might send, from a seed: random bytes, random JSON, valid messages in any order, and valid messages
 * with something wrong. Valid ones are sampled from the schemas themselves, so that a new message is covered the day it is born.
 */
import { CLIENT_MESSAGE_TYPES, CLIENT_SCHEMAS } from '../../src/protocol/messages.js';
import type { JsonSchema } from '../../src/protocol/schema.js';

export const FUZZ_KINDS = ['bytes', 'json', 'valid', 'mutated'] as const;
export type FuzzKind = (typeof FUZZ_KINDS)[number];
export type FuzzFrame = { readonly kind: FuzzKind; readonly frame: string | Buffer };

type Tree = { [key: string]: unknown };

/** mulberry32 by T. Ettinger: 32 bits of state are enough for a fuzzer that must repeat itself. */
const randomOf = (seed: number): (() => number) => {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
};

const ODD_NUMBERS = [0, -0, -1, 0.5, 1e-320, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 1e308, 3];
const ODD_TEXTS = ['', ' ', '\0', '\u202e', '\ud800', '\u{1f980}'.repeat(40), '__proto__', 'null', '{}', '../../etc/passwd', '<script>', '%s%n', "';--", 'a'.repeat(3000)];
const ODD_KEYS = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'type', 'event_id', '', 'length', 'then'];
const SIZES = ['128x128', '96x96', '0x0', '99999x99999', '128x', '1e3x4'];
const CANDIDATES = ['', 'candidate:1 1 udp 2113937151 127.0.0.1 9 typ host', 'candidate:1 1 udp 1 ::1 65535 typ relay raddr 0.0.0.0 rport 0', 'candidate:x'];

export class FuzzMessages {
	readonly #random: () => number;
	readonly #offers: readonly string[];

	/** `offers`: real SDP, to be sent as it is and with mistakes. */
	constructor(seed: number, offers: readonly string[]) {
		this.#random = randomOf(seed);
		this.#offers = offers;
	}

	/** A start that is right, as most connections begin. */
	start(): FuzzFrame {
		return { kind: 'valid', frame: JSON.stringify({ type: 'session.start', prompt: 'a cat jumps', seed: this.#below(2 ** 32), parameters: { steps: 1 } }) };
	}

	next(): FuzzFrame {
		const draw = this.#random();
		if (draw < 0.12) {
			const bytes = Buffer.from(Array.from({ length: this.#below(400) }, () => this.#below(256)));
			return { kind: 'bytes', frame: this.#random() < 0.5 ? bytes : bytes.toString('latin1') };
		}
		if (draw < 0.25) {
			return { kind: 'json', frame: JSON.stringify(this.#json(4)) };
		}
		const message = this.#message();
		if (draw < 0.5) {
			return { kind: 'valid', frame: JSON.stringify(message) };
		}
		for (let count = 1 + this.#below(3); count > 0; count -= 1) {
			this.#spoil(message);
		}
		return { kind: 'mutated', frame: this.#spoilText(JSON.stringify(message)) };
	}

	#below(end: number): number {
		return Math.floor(this.#random() * end);
	}

	#pick<T>(values: readonly T[]): T {
		return values[this.#below(values.length)] as T;
	}

	#message(): Tree {
		let type = this.#pick(CLIENT_MESSAGE_TYPES);
		if (type === 'session.stop' && this.#random() < 0.95) {
			// After it nothing is heard any more.
			type = this.#pick(['webrtc.offer', 'session.update', 'input.action'] as const);
		}
		return this.#sample(CLIENT_SCHEMAS[type].json, type) as Tree;
	}

	/** A value that the schema allows, mostly; `key` is the field's name. */
	#sample(schema: JsonSchema, key: string): unknown {
		if ('const' in schema) {
			return schema['const'];
		}
		if ('enum' in schema) {
			return this.#pick(schema['enum'] as unknown[]);
		}
		if ('anyOf' in schema) {
			return this.#sample(this.#pick(schema['anyOf'] as JsonSchema[]), key);
		}
		switch (schema['type']) {
			case 'string':
				return this.#text(key, Number(schema['maxLength']));
			case 'integer':
			case 'number': {
				const [low, high] = [Number(schema['minimum']), Number(schema['maximum'])];
				const value = low + this.#random() * Math.min(high - low, this.#random() < 0.5 ? 10 : high - low);
				return schema['type'] === 'integer' ? Math.floor(value) : value;
			}
			case 'boolean':
				return this.#random() < 0.5;
			case 'null':
				return null;
			case 'array': {
				const least = Number(schema['minItems']);
				return Array.from({ length: least + this.#below(Math.min(4, Number(schema['maxItems']) - least + 1)) }, () => this.#sample(schema['items'] as JsonSchema, key));
			}
			case 'object': {
				if ('additionalProperties' in schema && typeof schema['additionalProperties'] === 'object') {
					return Object.fromEntries(['steer_x', 'steer_y', 'zoom'].slice(this.#below(3)).map((name) => [name, this.#random() * 2 - 1]));
				}
				const required = schema['required'] as readonly string[];
				return Object.fromEntries(Object.entries(schema['properties'] as { [name: string]: JsonSchema })
					.filter(([name]) => required.includes(name) || this.#random() < 0.4)
					.map(([name, field]) => [name, this.#sample(field, name)]));
			}
			default:
				return this.#json(2);
		}
	}

	#text(key: string, most: number): string {
		switch (key) {
			case 'sdp':
				return this.#pick(this.#offers);
			case 'candidate':
				return this.#pick(CANDIDATES);
			case 'size':
				return this.#random() < 0.5 ? '128x128' : this.#pick(SIZES);
			case 'model':
				return this.#random() < 0.5 ? 'toybox' : 'other';
			case 'prompt':
			case 'text':
				return this.#pick(['a cat jumps', 'a rocket flies over the snow', 'zzz', 'x '.repeat(900)]);
			default:
				return this.#random() < 0.8 ? `id-${this.#below(50)}` : 'y'.repeat(Math.max(1, Math.min(most, this.#below(200))));
		}
	}

	#json(depth: number): unknown {
		const kinds = depth === 0 ? 4 : 6;
		switch (this.#below(kinds)) {
			case 0:
				return this.#pick(ODD_NUMBERS);
			case 1:
				return this.#pick(ODD_TEXTS);
			case 2:
				return this.#random() < 0.5;
			case 3:
				return null;
			case 4:
				return Array.from({ length: this.#below(5) }, () => this.#json(depth - 1));
			default:
				return this.#objectOf(Array.from({ length: this.#below(5) }, () => [this.#pick([...ODD_KEYS, ...CLIENT_MESSAGE_TYPES]), this.#json(depth - 1)]));
		}
	}

	/** With `__proto__` as a key of its own, as `JSON.parse` makes it. */
	#objectOf(entries: readonly (readonly [string, unknown])[]): Tree {
		const tree: Tree = {};
		for (const [key, value] of entries) {
			Object.defineProperty(tree, key, { value, enumerable: true, configurable: true, writable: true });
		}
		return tree;
	}

	/** Makes one thing wrong, at any depth. */
	#spoil(tree: Tree): void {
		const keys = Object.keys(tree);
		const key = this.#pick(keys.length === 0 ? ['x'] : keys);
		const value = tree[key];
		if (typeof value === 'object' && value !== null && this.#random() < 0.6) {
			this.#spoil(value as Tree);
			return;
		}
		switch (this.#below(5)) {
			case 0:
				// A type that is wrong leads nowhere else: keep most of them.
				if (key !== 'type' || this.#random() < 0.3) {
					Reflect.deleteProperty(tree, key);
				}
				return;
			case 1:
				Object.defineProperty(tree, Array.isArray(tree) ? '0' : this.#pick(ODD_KEYS), { value: this.#json(2), enumerable: true, configurable: true, writable: true });
				return;
			case 2:
				tree[key] = typeof value === 'string' && key !== 'type' ? this.#spoilString(value) : tree[key];
				return;
			case 3:
				tree[key] = typeof value === 'number' ? this.#pick(ODD_NUMBERS) : tree[key];
				return;
			default:
				if (key !== 'type' || this.#random() < 0.3) {
					tree[key] = this.#json(3);
				}
		}
	}

	#spoilString(text: string): string {
		const lines = text.split('\r\n');
		if (lines.length > 5) {
			for (let count = 1 + this.#below(4); count > 0; count -= 1) {
				this.#spoilLine(lines);
			}
			return lines.join('\r\n');
		}
		const at = this.#below(text.length + 1);
		return this.#pick([text.slice(0, at), text.slice(0, at) + this.#pick(ODD_TEXTS) + text.slice(at), text.repeat(1 + this.#below(60)), this.#pick(ODD_TEXTS)]);
	}

	#spoilLine(lines: string[]): void {
		const at = this.#below(lines.length);
		const line = lines[at] ?? '';
		switch (this.#below(5)) {
			case 0:
				lines.splice(at, 1);
				return;
			case 1:
				lines.splice(this.#below(lines.length), 0, ...Array.from({ length: 1 + this.#below(20) }, () => line));
				return;
			case 2:
				lines[at] = line.replace(/\d+/u, () => String(this.#pick([0, -1, 65_536, 4_294_967_296, 1e21, Number.NaN])));
				return;
			case 3:
				lines[at] = line.slice(0, this.#below(line.length + 1));
				return;
			default:
				lines[at] = line.slice(0, 2) + line.slice(2).replace(/[a-z]/u, () => this.#pick(['\0', ':', ' ', 'é', '9', '=']));
		}
	}

	#spoilText(text: string): string {
		const draw = this.#random();
		const at = this.#below(text.length);
		if (draw < 0.04) {
			return text.slice(0, at);
		}
		if (draw < 0.07) {
			return text.slice(0, at) + this.#pick(['"', '}', '\\', ',', '1e999', '\u0000']) + text.slice(at + 1);
		}
		if (draw < 0.08) {
			return text.replace(/\}$/u, `,"x":${'['.repeat(5000)}${']'.repeat(5000)}}`);
		}
		// Too long, now and then: that closes the connection.
		return draw < 0.082 ? text.replace(/\}$/u, `,"x":"${'z'.repeat(70_000)}"}`) : text;
	}
}
