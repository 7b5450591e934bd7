/** Which entries of the folder of models may be models. */
import { readdir } from 'node:fs/promises';

/** Folders and links to folders, sorted. Names that begin with a dot are of downloads and of what is not finished. A root that is not there has none. */
export const modelFolderNames = async (root: string): Promise<string[]> => {
	const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
	return entries.filter((entry) => (entry.isDirectory() || entry.isSymbolicLink()) && !entry.name.startsWith('.')).map(({ name }) => name).sort();
};
