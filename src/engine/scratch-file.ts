/**
 * A file for what is made of weights while a graph is built (8-bit columns, tables): the tensor library maps it, and it is removed as soon as
 * the graph is loaded. It lies in the system's folder for temporary files; TMPDIR names another. A process that is killed while it loads leaves its
 * file behind, of a gigabyte and more; the next one removes it.
 */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isOrphaned, PROCESS_MARK } from '../base/orphans.js';
import type { Scratch } from '../model/graph-builder.js';
import { TurbocastError } from '../protocol/errors.js';

/** Keeps vector loads aligned. */
const ALIGNMENT = 64;

const PREFIX = 'turbocast-graph-';

const removeOrphans = (): void => {
	for (const name of readdirSync(tmpdir()).filter((each) => each.startsWith(PREFIX) && isOrphaned(each.slice(PREFIX.length)))) {
		rmSync(join(tmpdir(), name), { recursive: true, force: true });
	}
};

export type ScratchFile = Scratch & { readonly remove: () => void };

/** The caller removes it. Throws `output_failed` when there is no space. */
export const openScratchFile = (): ScratchFile => {
	removeOrphans();
	const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${PROCESS_MARK}-`));
	const path = join(folder, 'constants');
	const file = openSync(path, 'w');
	let size = 0;
	return {
		path,
		append: (bytes) => {
			const offset = Math.ceil(size / ALIGNMENT) * ALIGNMENT;
			try {
				for (let done = 0; done < bytes.length;) {
					done += writeSync(file, bytes, done, bytes.length - done, offset + done);
				}
			} catch (error) {
				throw new TurbocastError('output_failed', `The folder for temporary files, ${tmpdir()}, has no room for the constants of a network; free some, or set TMPDIR to another folder.`, { cause: error });
			}
			size = offset + bytes.length;
			return offset;
		},
		remove: () => {
			closeSync(file);
			rmSync(folder, { recursive: true, force: true });
		},
	};
};
