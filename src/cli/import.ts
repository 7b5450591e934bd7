/** `turbocast models import`: a downloaded checkpoint becomes a folder of checked weights. */
import { createHash } from 'node:crypto';
import { readFile, stat, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { cannotWrite } from '../base/write-failure.js';
import { expertOf, findCheckpoints, findTokenizer, type CheckpointFiles } from '../model/checkpoint/checkpoint-folder.js';
import { openCheckpoint } from '../model/checkpoint/checkpoint-file.js';
import { type RecognisedComponent, recogniseComponent } from '../model/checkpoint/component.js';
import { writeComponent, writtenBytes } from '../model/checkpoint/component-writer.js';
import { WAN_TEXT_LENGTH } from '../model/checkpoint/dimensions.js';
import { recogniseNames } from '../model/checkpoint/tensor-names.js';
import type { TensorStore } from '../model/checkpoint/tensor-store.js';
import { COMPONENT_FILE, type ComponentFolder } from '../model/component-folder.js';
import type { Recipe } from '../model/recipes.js';
import { createUnigramTokenizer, readSentencePieceModel } from '../model/text/unigram-tokenizer.js';
import { TurbocastError } from '../protocol/errors.js';
import { sizeText } from './size-text.js';
import { makeWholeFolder } from './whole-folder.js';

export type ImportRequest = {
	/** A checkpoint, or a folder of them. */
	readonly from: string;
	/** The folder to be made; it must not exist. */
	readonly to: string;
	readonly name: string;
	/** Channels of an attention head, which the weights of a Wan DiT do not tell; default: Wan's. */
	readonly headDim?: number | undefined;
	/** What the publisher says; without it, what the files tell. */
	readonly license?: string | undefined;
	readonly signal: AbortSignal;
	/** A sentence for people. */
	readonly say: (sentence: string) => void;
};

type Found = { readonly files: CheckpointFiles; readonly store: TensorStore; readonly network: RecognisedComponent; readonly expert?: 'high' | 'low' | undefined };
type Written = ComponentFolder['components'][number];

/** Self-Forcing's files are the ones that hold a generator and its average. */
const NON_COMMERCIAL = 'CC BY-NC-SA 4.0 (Self-Forcing; not for commercial use)';
const UNKNOWN_LICENSE = 'unknown; see where the file came from';

const licenseOf = (found: readonly Found[]): string => (found.some(({ store }) => store.root?.startsWith('generator') === true) ? NON_COMMERCIAL : UNKNOWN_LICENSE);

/** How a denoiser was distilled, where its file tells: Self-Forcing keeps a generator, rCM prefixes every name. */
const recipeOf = (store: TensorStore, { component, kind }: RecognisedComponent): Recipe | undefined => {
	if (component !== 'dit') {
		return undefined;
	}
	if (store.root?.startsWith('generator') === true) {
		return 'self-forcing';
	}
	return kind === 'turbo-dit' ? 'turbodiffusion' : [...store.tensors.keys()].every((name) => name.startsWith('net.')) ? 'rcm' : undefined;
};

/** Each network once, or two denoisers whose names say which is for much noise. */
const checkTogether = (found: readonly Found[]): void => {
	const keys = found.map(({ network, expert }) => `${network.component}${expert ?? ''}`);
	for (const [index, { files, network }] of found.entries()) {
		const other = found[keys.indexOf(keys[index] ?? '')];
		if (other !== undefined && other.files !== files) {
			throw new TurbocastError('invalid_option', `${other.files.name} and ${files.name} are both a ${network.title}; import one of them, or each under its own name.`);
		}
	}
};

const openAll = async (request: ImportRequest, stores: TensorStore[]): Promise<Found[]> => {
	const checkpoints = await findCheckpoints(request.from);
	const found: Omit<Found, 'expert'>[] = [];
	for (const files of checkpoints) {
		const store = await openCheckpoint(files.paths);
		stores.push(store);
		if (checkpoints.length > 1 && recogniseNames([...store.tensors.keys()]) === undefined) {
			request.say(`${files.name} is none of the networks that are imported and is left out.`);
			continue;
		}
		found.push({ files, store, network: recogniseComponent(store, { headDim: request.headDim }) });
	}
	if (found.length === 0) {
		throw new TurbocastError('model_invalid', `${request.from} holds none of the networks that can be imported (Wan DiT, umT5 encoder, Wan VAE, TAEHV).`);
	}
	const hasExperts = found.filter(({ network }) => network.component === 'dit').length > 1;
	return found.map((each) => ({ ...each, ...(hasExperts && each.network.component === 'dit' ? { expert: expertOf(each.files.name) } : {}) }));
};

const checkSpace = async (folder: string, found: readonly Found[]): Promise<void> => {
	const { bavail, bsize } = await statfs(folder);
	const needed = found.reduce((sum, { network }) => sum + writtenBytes(network), 0);
	if (needed > bavail * bsize) {
		throw new TurbocastError('output_failed', `The import needs ${sizeText(needed)} of disk, but ${sizeText(bavail * bsize)} are free in ${dirname(folder)}; make room, or set engine.models_dir to another folder.`);
	}
};

const writeAll = async (found: readonly Found[], folder: string, request: ImportRequest): Promise<Written[]> => {
	const written: Written[] = [];
	for (const { files, store, network, expert } of found) {
		const { component, kind, title, dimensions, tensors, leftOut } = network;
		const file = `${component}${expert === undefined ? '' : `-${expert}`}.safetensors`;
		let saidPercent = 0;
		const { bytes, sha256 } = await writeComponent(join(folder, file), network, {
			signal: request.signal,
			onProgress: (done, of) => {
				const percent = Math.floor((10 * done) / of) * 10;
				if (percent > saidPercent && of > 1e9) {
					saidPercent = percent;
					request.say(`${files.name}: ${percent} %`);
				}
			},
		});
		request.say(`${files.name}: ${title}, ${tensors.length} tensors, ${(bytes / 1e6).toFixed(1)} MB${leftOut === 0 ? '' : `; ${leftOut} tensors that are not needed were left out`}`);
		const recipe = recipeOf(store, network);
		written.push({ component, kind, title, ...(expert === undefined ? {} : { expert }), ...(recipe === undefined ? {} : { recipe }), source: [files.name], dimensions, file, bytes, sha256 });
	}
	return written;
};

/** The tokenizer beside the text encoder, if there is one; its pieces must fit the encoder's vocabulary. */
const checkedTokenizer = async (found: readonly Found[], request: ImportRequest): Promise<string | undefined> => {
	const text = found.find(({ network }) => network.component === 'text');
	if (text === undefined) {
		return undefined;
	}
	const path = await findTokenizer(request.from);
	if (path === undefined) {
		request.say('There is no spiece.model or tokenizer.json beside the text encoder; without it the encoder can be checked, but prompts cannot be turned into its tokens.');
		return undefined;
	}
	createUnigramTokenizer(basename(path), await readSentencePieceModel(path), Number(text.network.dimensions['vocab_size']), WAN_TEXT_LENGTH);
	return path;
};

const writeTokenizer = async (path: string | undefined, folder: string, request: ImportRequest): Promise<Pick<ComponentFolder, 'tokenizer'>> => {
	if (path === undefined) {
		return {};
	}
	const [file, contents] = [basename(path), await readFile(path)];
	await writeFile(join(folder, file), contents).catch(cannotWrite(join(folder, file)));
	request.say(`${file}: tokenizer, ${(contents.length / 1e6).toFixed(1)} MB`);
	return { tokenizer: { file, bytes: contents.length, sha256: createHash('sha256').update(contents).digest('hex') } };
};

/**
 * Reads, checks and writes; the folder appears when it is whole. Throws `invalid_option`, `model_invalid` or `weights_corrupt` for what
 * cannot be imported, `output_failed` for what cannot be written. Nothing stays behind then.
 */
export const importCheckpoint = async (request: ImportRequest): Promise<ComponentFolder> => {
	if (await stat(request.to).then(() => true, () => false)) {
		throw new TurbocastError('invalid_option', `There is a model ${request.name} already; remove ${request.to} or choose another name.`);
	}
	const stores: TensorStore[] = [];
	try {
		const found = await openAll(request, stores);
		checkTogether(found);
		const tokenizer = await checkedTokenizer(found, request);
		return await makeWholeFolder(request.to, async (unfinished) => {
			await checkSpace(unfinished, found);
			const folder: ComponentFolder = { format: 1, name: request.name, license: request.license ?? licenseOf(found), components: await writeAll(found, unfinished, request), ...await writeTokenizer(tokenizer, unfinished, request) };
			await writeFile(join(unfinished, COMPONENT_FILE), `${JSON.stringify(folder, undefined, '\t')}\n`).catch(cannotWrite(request.to));
			return folder;
		});
	} finally {
		await Promise.all(stores.map((store) => store.close()));
	}
};
