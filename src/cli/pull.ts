/** `turbocast models pull`: published weights are fetched, and imported as any download is. */
import { mkdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { cannotWrite } from '../base/write-failure.js';
import { type ComponentFolder, readComponentFolder } from '../model/component-folder.js';
import { TurbocastError } from '../protocol/errors.js';
import { type Catalogue, setsOf, type WeightSet } from './catalogue.js';
import { download, type DownloadRequest } from './download.js';
import type { Hub, HubFile } from './hub.js';
import { importCheckpoint } from './import.js';
import { sizeText } from './size-text.js';

/** Below the models; a folder whose name begins with a dot is no model. */
const DOWNLOADS = '.downloads';
/** The import writes what was fetched once more. */
const COPIES = 2;
const SAY_EVERY_PERCENT = 10;

export type PullRequest = {
	readonly catalogue: Catalogue;
	readonly set: string;
	/** Folder of all models. */
	readonly root: string;
	readonly hub: Hub;
	/** Names of sets whose licences are accepted beforehand. */
	readonly acceptedLicenses: readonly string[];
	/** Asks a person; `undefined` where there is nobody to ask. */
	readonly ask: ((question: string) => Promise<boolean>) | undefined;
	readonly say: (sentence: string) => void;
	readonly onProgress?: ((line: string) => void) | undefined;
	readonly sleep: DownloadRequest['sleep'];
	readonly nowMs: () => number;
	readonly signal: AbortSignal;
};

const licenseText = ({ license }: WeightSet): string => `${license.name}${license.commercial ? '' : ', not for commercial use'} (${license.url})`;

const checkLicenses = async (sets: readonly WeightSet[], { acceptedLicenses, ask, say }: PullRequest): Promise<void> => {
	for (const set of sets) {
		say(`${set.name}: ${set.title}. Licence: ${licenseText(set)}`);
	}
	for (const set of sets.filter(({ license }) => !license.commercial)) {
		if (acceptedLicenses.includes(set.name)) {
			continue;
		}
		if (ask === undefined || !await ask(`The weights of ${set.name} are under ${licenseText(set)}. Do you accept that?`)) {
			throw new TurbocastError('license_not_accepted', `The weights of ${set.name} are under ${licenseText(set)}, which was not accepted. If you accept it, add --accept-license ${set.name}.`);
		}
	}
};

const checkSpace = async (folder: string, bytes: number): Promise<void> => {
	const { bavail, bsize } = await statfs(folder);
	if (bytes > bavail * bsize) {
		throw new TurbocastError('output_failed', `About ${sizeText(bytes)} are needed in ${folder} (the files and what is made of them), but ${sizeText(bavail * bsize)} are free.`);
	}
};

/** Lines about one file: rewritten in a terminal, every tenth part elsewhere. */
const reporter = (file: HubFile, { say, onProgress, nowMs }: PullRequest): ((done: number) => void) => {
	const startedAtMs = nowMs();
	let [first, said, drawnAtMs]: [number | undefined, number, number] = [undefined, 0, -Infinity];
	return (done) => {
		first ??= done;
		const percent = file.size === 0 ? 100 : Math.floor((100 * done) / file.size);
		const seconds = Math.max(0.001, (nowMs() - startedAtMs) / 1000);
		const line = `${file.path}: ${sizeText(done)} of ${sizeText(file.size)}, ${((done - first) / 1e6 / seconds).toFixed(1)} MB/s`;
		if (onProgress !== undefined) {
			if (done === file.size || nowMs() - drawnAtMs >= 200) {
				drawnAtMs = nowMs();
				onProgress(line);
			}
		} else if (percent >= said + SAY_EVERY_PERCENT || (done === file.size && said < 100)) {
			said = percent;
			say(`${line} (${percent} %)`);
		}
	};
};

const exists = (path: string): Promise<boolean> => stat(path).then(() => true, () => false);

const pullSet = async (set: WeightSet, request: PullRequest): Promise<ComponentFolder> => {
	const { root, hub, signal, say, sleep } = request;
	const { name, repository, revision } = set;
	const files = await hub.describe(repository, revision, set.files, signal);
	const downloads = join(root, DOWNLOADS, name);
	await mkdir(downloads, { recursive: true }).catch(cannotWrite(downloads));
	const total = files.reduce((sum, { size }) => sum + size, 0);
	await checkSpace(downloads, COPIES * total);
	say(`Fetching ${name}: ${files.length} ${files.length === 1 ? 'file' : 'files'}, ${sizeText(total)}, from ${repository}.`);
	for (const file of files) {
		await download({ hub, repository, revision, file, to: join(downloads, file.path), signal, sleep, say, onProgress: reporter(file, request) });
	}
	// One file at its own place in a repository, such as checkpoints/x.pt, is imported by its path; several are by their folder.
	const [only] = files.length === 1 ? files : [];
	const from = only === undefined ? downloads : join(downloads, only.path);
	const folder = await importCheckpoint({ from, to: join(root, name), name, license: licenseText(set), signal, say });
	await rm(downloads, { recursive: true, force: true });
	return folder;
};

/**
 * Fetches and imports the sets that are not there yet, the one that was asked for last; each becomes a folder below `root`. What was fetched stays until
 * it is imported, so that the same command goes on after an interruption. Throws `invalid_option`, `license_not_accepted`, and what
 * hub, download and import throw.
 */
export const pull = async (request: PullRequest): Promise<ComponentFolder[]> => {
	const sets = setsOf(request.catalogue, request.set);
	for (const accepted of request.acceptedLicenses) {
		setsOf(request.catalogue, accepted);
	}
	const missing: WeightSet[] = [];
	const folders: ComponentFolder[] = [];
	for (const set of sets) {
		const path = join(request.root, set.name);
		const there = await readComponentFolder(path);
		if (there !== undefined) {
			request.say(`${set.name} is there already.`);
			folders.push(there);
		} else if (await exists(path)) {
			throw new TurbocastError('invalid_option', `${path} is in the way: it is no folder of imported weights. Remove it or set engine.models_dir.`);
		} else {
			missing.push(set);
		}
	}
	await checkLicenses(missing, request);
	for (const set of missing) {
		folders.push(await pullSet(set, request));
	}
	return folders;
};

/** A question in a terminal; anything but y or yes is no. */
export const askInTerminal = async (question: string, signal: AbortSignal): Promise<boolean> => {
	const terminal = createInterface({ input: process.stdin, output: process.stderr });
	try {
		return /^y(?:es)?$/iu.test((await terminal.question(`${question} [y/N] `, { signal })).trim());
	} finally {
		terminal.close();
	}
};
