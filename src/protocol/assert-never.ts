/** Ends a switch over a union: a new member of the union becomes a compile error here. */
export const assertNever = (value: never): never => {
	throw new Error(`Unexpected value: ${JSON.stringify(value)}`);
};
