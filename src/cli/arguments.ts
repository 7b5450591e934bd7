/** Command-line flags: a table in, typed values out. Flags may take one or two values and may repeat. */
import { TurbocastError } from '../protocol/errors.js';

export type FlagTable = {
	readonly [name: string]: {
		/** Names of the values that follow the flag, as the usage shows them; none for a switch. */
		readonly values: readonly string[];
		readonly repeatable?: boolean;
		readonly says: string;
	};
};

export type Arguments = {
	/** What is not a flag, in order. */
	readonly words: readonly string[];
	/** For each use of the flag, its values. */
	readonly all: (flag: string) => readonly (readonly string[])[];
	/** The only value of a flag that takes one. */
	readonly one: (flag: string) => string | undefined;
	readonly has: (flag: string) => boolean;
};

const mistake = (sentence: string): never => {
	throw new TurbocastError('invalid_option', sentence);
};

/** Splits `argv` by `table`. `--flag=value` works for flags of one value; `--` ends the flags. Throws `invalid_option`. */
export const parseArguments = (argv: readonly string[], table: FlagTable): Arguments => {
	const words: string[] = [];
	const uses = new Map<string, string[][]>();
	let index = 0;
	const take = (): string | undefined => {
		const value = argv[index];
		index += 1;
		return value;
	};
	for (let argument = take(); argument !== undefined; argument = take()) {
		if (argument === '--') {
			words.push(...argv.slice(index));
			break;
		}
		if (!argument.startsWith('--')) {
			words.push(argument);
			continue;
		}
		const equals = argument.indexOf('=');
		const name = argument.slice(2, equals === -1 ? undefined : equals);
		const flag = Object.hasOwn(table, name) ? table[name] : undefined;
		if (flag === undefined) {
			mistake(`--${name} is not a known option; known: ${Object.keys(table).map((known) => `--${known}`).join(', ')}.`);
			break;
		}
		const values: string[] = [];
		if (equals !== -1) {
			values.push(argument.slice(equals + 1));
		}
		while (values.length < flag.values.length) {
			const value = take();
			if (value === undefined) {
				mistake(`--${name} needs ${flag.values.join(' and ')} after it.`);
				break;
			}
			values.push(value);
		}
		if (values.length > flag.values.length) {
			mistake(`--${name} takes no value.`);
		}
		const before = uses.get(name);
		if (before !== undefined && flag.repeatable !== true) {
			mistake(`--${name} may be given only once.`);
		}
		uses.set(name, [...(before ?? []), values]);
	}
	return {
		words,
		all: (flag) => uses.get(flag) ?? [],
		one: (flag) => uses.get(flag)?.[0]?.[0],
		has: (flag) => uses.has(flag),
	};
};

/** A number from `min` to `max`, or `invalid_option` naming `flag`. */
export const parseNumber = (flag: string, value: string, limits: { min: number; max: number; integer?: boolean }): number => {
	const number = value.trim() === '' ? Number.NaN : Number(value);
	const { min, max, integer = false } = limits;
	if (!Number.isFinite(number) || number < min || number > max || (integer && !Number.isInteger(number))) {
		mistake(`--${flag} must be a ${integer ? 'whole ' : ''}number from ${min} to ${max}, not "${value}".`);
	}
	return number;
};

export const parseSize = (flag: string, value: string): { width: number; height: number } => {
	const match = /^(\d{1,5})x(\d{1,5})$/u.exec(value);
	if (match === null) {
		return mistake(`--${flag} must be WIDTHxHEIGHT in pixels, such as 128x128, not "${value}".`);
	}
	return { width: Number(match[1]), height: Number(match[2]) };
};

/** The flags of a table, one a line, for `--help`. */
export const usageOf = (table: FlagTable): string => {
	const rows = Object.entries(table).map(([name, flag]) => [`--${name} ${flag.values.join(' ')}`.trimEnd(), flag.says] as const);
	const width = Math.max(...rows.map(([left]) => left.length));
	return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join('\n');
};
