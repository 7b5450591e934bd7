/** How a case ends: it returns, or it throws one of these. Anything else that it throws is a fault of the suite or of the network. */
import { isDeepStrictEqual } from 'node:util';

/** The other side does not do what the protocol says. */
export class Violation extends Error {
	override readonly name = 'Violation';
}

/** The case does not apply to this server, or needs more than it allows. */
export class Inapplicable extends Error {
	override readonly name = 'Inapplicable';
}

export const skip = (reason: string): never => {
	throw new Inapplicable(reason);
};

/** Throws a `Violation` unless it holds; the sentence says what was expected and what came. */
export function ensure(holds: boolean, sentence: string): asserts holds {
	if (!holds) {
		throw new Violation(sentence);
	}
}

const MOST_QUOTED = 300;

export const quote = (value: unknown): string => {
	const text = JSON.stringify(value) ?? 'nothing';
	return text.length > MOST_QUOTED ? `${text.slice(0, MOST_QUOTED)}...` : text;
};

export const ensureEqual = (actual: unknown, expected: unknown, what: string): void =>
	ensure(isDeepStrictEqual(actual, expected), `${what} is ${quote(actual)} instead of ${quote(expected)}`);

export const VERDICTS = ['pass', 'fail', 'skipped'] as const;
export type Verdict = (typeof VERDICTS)[number];

export type Result = {
	readonly name: string;
	/** Heading of docs/protocol.md that the case holds. */
	readonly section: string;
	readonly verdict: Verdict;
	/** What was wrong, or why it was skipped. */
	readonly reason: string | undefined;
	readonly tookMs: number;
};
