/** What a kind of golden folder has to offer, and how far a result may be off. */
import type { Backend } from '../engine/backend.js';
import type { EngineProfile } from '../engine/protocol.js';
import type { GoldenFolder } from './golden-folder.js';

export type CheckedOutput = { readonly name: string; readonly relativeError: number };

export type CheckedCase = { readonly case: string; readonly outputs: readonly CheckedOutput[] };

/** Computes every case of a folder and compares; `warn` takes sentences for people. Throws `model_invalid` or `weights_corrupt` for a folder that cannot be computed. */
export type Verifier = (folder: GoldenFolder, profile: EngineProfile, backend: Backend, warn: (sentence: string) => void) => AsyncIterable<CheckedCase>;

export type Kind = {
	readonly verify: Verifier;
	/** Whether `cpu-int8` computes anything of this kind in 8 bits; the others are held to float32's bound in every profile. */
	readonly hasInt8Linears: boolean;
};

/** ||ours - golden|| / ||golden||; NaN when anything is not a number, the lengths differ or there is nothing to compare. */
export const relativeError = (ours: ArrayLike<number>, golden: ArrayLike<number>): number => {
	if (ours.length !== golden.length || golden.length === 0) {
		return Number.NaN;
	}
	let [difference, size] = [0, 0];
	for (let index = 0; index < golden.length; index++) {
		const expected = golden[index] ?? Number.NaN;
		difference += ((ours[index] ?? Number.NaN) - expected) ** 2;
		size += expected ** 2;
	}
	// All zeros have no relative error; then nothing but zeros will do.
	return difference === 0 && size === 0 ? 0 : Math.sqrt(difference / size);
};

export const closeTo = (name: string, ours: ArrayLike<number>, golden: ArrayLike<number>): CheckedOutput => ({ name, relativeError: relativeError(ours, golden) });

/** 0 when every element is the same, 1 when not. */
export const exactly = (name: string, ours: ArrayLike<number>, golden: ArrayLike<number>): CheckedOutput => {
	let isSame = ours.length === golden.length && golden.length > 0;
	for (let index = 0; isSame && index < golden.length; index++) {
		isSame = ours[index] === golden[index];
	}
	return { name, relativeError: isSame ? 0 : 1 };
};
