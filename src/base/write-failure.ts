/** What is told when the disk does not take a file or a folder. */
import { dirname } from 'node:path';
import { TurbocastError } from '../protocol/errors.js';

/** The error as `output_failed`, which says what is wrong with the place `path`. */
export const writeFailure = (path: string, error: unknown): TurbocastError => {
	const { code } = error as NodeJS.ErrnoException;
	const reasons: { readonly [code: string]: string } = {
		ENOENT: `the folder ${dirname(path)} does not exist; create it or choose another place`,
		ENOTDIR: `${dirname(path)} is not a folder; choose another place`,
		EEXIST: 'something else is in its place; remove it or choose another place',
		EACCES: `the folder ${dirname(path)} may not be written to; choose another place`,
		EROFS: `the folder ${dirname(path)} is on a read-only disk; choose another place`,
		ENOSPC: 'the disk is full; make room or choose another place',
		EDQUOT: 'the share of the disk that this user may have is used up; make room or choose another place',
		ENAMETOOLONG: 'its name is too long; choose a shorter one',
	};
	return new TurbocastError('output_failed', `${path} cannot be written: ${reasons[code ?? ''] ?? `${String(error)}; choose another place`}.`, { cause: error });
};

/** For `catch`. */
export const cannotWrite = (path: string) => (error: unknown): never => {
	throw writeFailure(path, error);
};
