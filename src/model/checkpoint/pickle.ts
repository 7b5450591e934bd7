/**
 * A reader of pickles that can build data and nothing else. A pickle is a program; the original machine imports and calls whatever it is
 * told to. Here the opcodes are those that protocol 2 needs for a state dict, a name stands for nothing until the caller's table gives it
 * a meaning, and the first thing that is not listed ends the reading. (Python, Lib/pickletools.py documents the opcodes.)
 */
import { TurbocastError } from '../../protocol/errors.js';

export type PickleDict = Map<PickleValue, PickleValue>;
export type PickleTuple = { readonly tuple: readonly PickleValue[] };
/** A name of Python, such as `torch FloatStorage`; it does nothing. */
export type PickleGlobal = { readonly global: string };
/** What the caller made of a persistent id or of a call that it allows. */
export type PickleObject = { readonly object: unknown };
export type PickleValue = null | boolean | number | string | PickleValue[] | PickleDict | PickleTuple | PickleGlobal | PickleObject;

export type PickleMeanings = {
	/** How messages call the pickle. */
	readonly label: string;
	/** Whether the name `module name` may occur at all. */
	readonly allows: (name: string) => boolean;
	/** A call of an allowed name. Throws for one that is not to be called. */
	readonly call: (name: string, args: readonly PickleValue[]) => PickleValue;
	/** A persistent id: where a tensor's numbers are. */
	readonly persistent: (id: PickleValue) => PickleValue;
};

const OPCODES = {
	0x28: 'MARK', 0x29: 'EMPTY_TUPLE', 0x2e: 'STOP', 0x47: 'BINFLOAT', 0x4a: 'BININT', 0x4b: 'BININT1', 0x4d: 'BININT2', 0x4e: 'NONE', 0x51: 'BINPERSID',
	0x52: 'REDUCE', 0x55: 'SHORT_BINSTRING', 0x58: 'BINUNICODE', 0x5d: 'EMPTY_LIST', 0x61: 'APPEND', 0x62: 'BUILD', 0x63: 'GLOBAL', 0x65: 'APPENDS', 0x68: 'BINGET', 0x6a: 'LONG_BINGET',
	0x71: 'BINPUT', 0x72: 'LONG_BINPUT', 0x73: 'SETITEM', 0x74: 'TUPLE', 0x75: 'SETITEMS', 0x7d: 'EMPTY_DICT',
	0x80: 'PROTO', 0x85: 'TUPLE1', 0x86: 'TUPLE2', 0x87: 'TUPLE3', 0x88: 'NEWTRUE', 0x89: 'NEWFALSE', 0x8a: 'LONG1',
} as const;

const PROTOCOL = 2;
const MARK = Symbol('mark');

class Unpickler {
	readonly #bytes: Uint8Array;
	readonly #view: DataView;
	readonly #meanings: PickleMeanings;
	readonly #memo = new Map<number, PickleValue>();
	readonly #stack: (PickleValue | typeof MARK)[] = [];
	#at = 0;

	constructor(bytes: Uint8Array, meanings: PickleMeanings) {
		this.#bytes = bytes;
		this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
		this.#meanings = meanings;
	}

	run(): PickleValue {
		for (;;) {
			const code = this.#view.getUint8(this.#take(1));
			const name = (OPCODES as { readonly [code: number]: (typeof OPCODES)[keyof typeof OPCODES] })[code];
			switch (name) {
				case undefined:
					return this.#refuse(`the operation 0x${code.toString(16)} at byte ${this.#at - 1} is not one that a file of tensors needs`);
				case 'PROTO': {
					const version = this.#view.getUint8(this.#take(1));
					if (version !== PROTOCOL) {
						return this.#refuse(`it is written in pickle protocol ${version}; only ${PROTOCOL}, PyTorch's own, is read`);
					}
					break;
				}
				case 'STOP': {
					const result = this.#pop();
					return this.#stack.length === 0 ? result : this.#broken('something is left over at its end');
				}
				case 'MARK':
					this.#stack.push(MARK);
					break;
				case 'NONE':
					this.#stack.push(null);
					break;
				case 'NEWTRUE':
				case 'NEWFALSE':
					this.#stack.push(name === 'NEWTRUE');
					break;
				case 'BININT':
					this.#stack.push(this.#view.getInt32(this.#take(4), true));
					break;
				case 'BININT1':
					this.#stack.push(this.#view.getUint8(this.#take(1)));
					break;
				case 'BININT2':
					this.#stack.push(this.#view.getUint16(this.#take(2), true));
					break;
				case 'LONG1':
					this.#stack.push(this.#long());
					break;
				case 'BINFLOAT':
					this.#stack.push(this.#view.getFloat64(this.#take(8), false));
					break;
				case 'BINUNICODE':
					this.#stack.push(this.#text(this.#view.getUint32(this.#take(4), true)));
					break;
				case 'SHORT_BINSTRING':
					this.#stack.push(this.#text(this.#view.getUint8(this.#take(1))));
					break;
				case 'EMPTY_LIST':
					this.#stack.push([]);
					break;
				case 'EMPTY_DICT':
					this.#stack.push(new Map());
					break;
				case 'EMPTY_TUPLE':
					this.#stack.push({ tuple: [] });
					break;
				case 'TUPLE':
					this.#stack.push({ tuple: this.#popToMark() });
					break;
				case 'TUPLE1':
				case 'TUPLE2':
				case 'TUPLE3':
					this.#stack.push({ tuple: Array.from({ length: Number(name.at(-1)) }, () => this.#pop()).reverse() });
					break;
				case 'APPEND':
				case 'APPENDS': {
					const items = name === 'APPEND' ? [this.#pop()] : this.#popToMark();
					const list = this.#top();
					if (!Array.isArray(list)) {
						return this.#broken('something is appended to what is not a list');
					}
					for (const item of items) {
						list.push(item); // not spread: a long list would overflow the stack
					}
					break;
				}
				case 'SETITEM':
				case 'SETITEMS':
					this.#setItems(name === 'SETITEM' ? [this.#pop(), this.#pop()].reverse() : this.#popToMark());
					break;
				case 'BINPUT':
					this.#memo.set(this.#view.getUint8(this.#take(1)), this.#top());
					break;
				case 'LONG_BINPUT':
					this.#memo.set(this.#view.getUint32(this.#take(4), true), this.#top());
					break;
				case 'BINGET':
					this.#recall(this.#view.getUint8(this.#take(1)));
					break;
				case 'LONG_BINGET':
					this.#recall(this.#view.getUint32(this.#take(4), true));
					break;
				case 'GLOBAL':
					this.#global();
					break;
				case 'REDUCE':
					this.#reduce();
					break;
				case 'BUILD':
					this.#build();
					break;
				case 'BINPERSID':
					this.#stack.push(this.#meanings.persistent(this.#pop()));
					break;
			}
		}
	}

	#refuse(sentence: string): never {
		throw new TurbocastError('weights_corrupt', `${this.#meanings.label} is refused: ${sentence}. Nothing of it was executed. Only load checkpoints of tensors, or convert the file to .safetensors where you trust it.`);
	}

	#broken(sentence: string): never {
		throw new TurbocastError('weights_corrupt', `${this.#meanings.label} is damaged: ${sentence}. Fetch the file again.`);
	}

	/** Moves on by `count` bytes and says where they begin. */
	#take(count: number): number {
		const start = this.#at;
		if (start + count > this.#bytes.length) {
			return this.#broken('its list of tensors ends too early');
		}
		this.#at = start + count;
		return start;
	}

	#text(length: number): string {
		const start = this.#take(length);
		return new TextDecoder().decode(this.#bytes.subarray(start, start + length));
	}

	#line(): string {
		const end = this.#bytes.indexOf(0x0a, this.#at);
		const text = this.#text((end === -1 ? this.#bytes.length : end) - this.#at);
		this.#take(1);
		return text;
	}

	/** Little-endian two's complement. */
	#long(): number {
		const length = this.#view.getUint8(this.#take(1));
		const start = this.#take(length);
		let value = 0n;
		for (let index = length - 1; index >= 0; index--) {
			value = (value << 8n) | BigInt(this.#view.getUint8(start + index));
		}
		const number = Number(BigInt.asIntN(length * 8, value));
		return Number.isSafeInteger(number) ? number : this.#broken('it holds a number that is too large');
	}

	#pop(): PickleValue {
		const value = this.#stack.pop();
		return value === undefined || value === MARK ? this.#broken('it takes something from an empty stack') : value;
	}

	#top(): PickleValue {
		const value = this.#stack.at(-1);
		return value === undefined || value === MARK ? this.#broken('it looks at an empty stack') : value;
	}

	#popToMark(): PickleValue[] {
		const mark = this.#stack.lastIndexOf(MARK);
		if (mark === -1) {
			return this.#broken('a mark is missing');
		}
		return this.#stack.splice(mark).slice(1) as PickleValue[];
	}

	#recall(index: number): void {
		const value = this.#memo.get(index);
		this.#stack.push(value === undefined ? this.#broken(`it recalls number ${index}, which it never stored`) : value);
	}

	#setItems(items: readonly PickleValue[]): void {
		const dict = this.#top();
		if (!(dict instanceof Map) || items.length % 2 !== 0) {
			this.#broken('an entry is set in what is not a dict');
			return;
		}
		for (let index = 0; index < items.length; index += 2) {
			dict.set(items[index] ?? null, items[index + 1] ?? null);
		}
	}

	#global(): void {
		const module = this.#line();
		const name = `${module}.${this.#line()}`;
		if (!this.#meanings.allows(name)) {
			this.#refuse(`it asks for ${name}, which a file of tensors does not need`);
		}
		this.#stack.push({ global: name });
	}

	#reduce(): void {
		const args = this.#pop();
		const callee = this.#pop();
		if (typeof callee !== 'object' || callee === null || !('global' in callee) || typeof args !== 'object' || args === null || !('tuple' in args)) {
			this.#refuse('it calls something that is not a name');
			return;
		}
		this.#stack.push(this.#meanings.call(callee.global, args.tuple));
	}

	/** PyTorch hangs `_metadata` on the OrderedDict of a state dict; attributes of a dict mean nothing here and are dropped. */
	#build(): void {
		const state = this.#pop();
		if (!(this.#top() instanceof Map) || !(state instanceof Map)) {
			this.#refuse('it sets the state of an object');
		}
	}
}

/** The value that the pickle describes. Throws `weights_corrupt` for anything that is not plain data, naming it. */
export const readPickle = (bytes: Uint8Array, meanings: PickleMeanings): PickleValue => new Unpickler(bytes, meanings).run();
