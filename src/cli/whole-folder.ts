/** A folder that appears under its name when all is in it. Until then it lies beside its place, under a name that begins with a dot. */
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { isOrphaned, PROCESS_MARK } from '../base/orphans.js';
import { cannotWrite } from '../base/write-failure.js';

const UNFINISHED = '.unfinished-';

/** Removes what processes left that were killed in the middle. */
const removeOrphans = async (root: string): Promise<void> => {
	for (const name of await readdir(root)) {
		const mark = name.startsWith('.') ? name.split(UNFINISHED)[1] : undefined;
		if (mark !== undefined && isOrphaned(mark)) {
			await rm(join(root, name), { recursive: true, force: true });
		}
	}
};

/** `fill` gets the empty folder; when it throws, nothing stays. Throws `output_failed`, and what `fill` throws. */
export const makeWholeFolder = async <Result>(to: string, fill: (folder: string) => Promise<Result>): Promise<Result> => {
	const root = dirname(to);
	await mkdir(root, { recursive: true }).catch(cannotWrite(root));
	await removeOrphans(root).catch(cannotWrite(root));
	const unfinished = join(root, `.${basename(to)}${UNFINISHED}${PROCESS_MARK}`);
	await mkdir(unfinished).catch(cannotWrite(to));
	try {
		const result = await fill(unfinished);
		await rename(unfinished, to).catch(cannotWrite(to));
		return result;
	} finally {
		await rm(unfinished, { recursive: true, force: true });
	}
};
