/** `turbocast models join`: imported networks become a model that runs: a folder whose `model.json` names them. */
import { rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cannotWrite } from '../base/write-failure.js';
import { SIGMA_MAX } from '../engine/rcm.js';
import { type ComponentFolder, readComponentFolder } from '../model/component-folder.js';
import type { JoinedModel } from '../model/joined-model.js';
import { type ModelFolder, openModelFolder } from '../model/model-folder.js';
import {
	CLIP_LATENTS, DEFAULT_STEPS, EXPERT_BOUNDARY, FPS, type Recipe, RECIPES, SELF_FORCING_SCHEDULES, SELF_FORCING_STREAM, SIZES, TURBO_ATTENTION,
} from '../model/recipes.js';
import { TurbocastError } from '../protocol/errors.js';
import { makeWholeFolder } from './whole-folder.js';

export const DECODERS = ['vae', 'taehv'] as const;

export type JoinRequest = {
	/** Folders of imported networks; a name as people know it and its path. */
	readonly folders: readonly { readonly name: string; readonly path: string }[];
	/** The folder of the model: a new one, or one of those above when that has everything. */
	readonly to: string;
	readonly recipe?: Recipe | undefined;
	readonly decoder?: (typeof DECODERS)[number] | undefined;
};

type Part = ComponentFolder['components'][number];
type Found = { readonly ref: string; readonly part: Part; readonly license: string };
type Opened = { readonly name: string; readonly folder: ComponentFolder };

const EXAMPLES = ['A stylish woman walks down a Tokyo street filled with warm glowing neon and animated city signage.'];

const refuse = (sentence: string): never => {
	throw new TurbocastError('invalid_option', sentence);
};

/** Where a network is among the folders. Two of a kind are refused: which is meant nobody knows. */
const find = (opened: readonly Opened[], component: Part['component'], toName: string): Found | undefined => {
	const holders = opened.filter(({ folder }) => folder.components.some((part) => part.component === component));
	if (holders.length > 1) {
		refuse(`${holders.map(({ name }) => name).join(' and ')} both hold a network of the kind "${component}"; join folders that have one of each.`);
	}
	return holders.map(({ name, folder }): Found => {
		const parts = folder.components.filter((part) => part.component === component);
		return { ref: `${name === toName ? '.' : name}/${component}`, part: parts.find(({ expert }) => expert === 'high') ?? parts[0] as Part, license: folder.license };
	})[0];
};

const recipeOf = ({ part }: Found, asked: Recipe | undefined): Recipe =>
	asked ?? part.recipe ?? (part.kind === 'turbo-dit' ? 'turbodiffusion' : refuse(
		`Nothing in ${part.source.join(', ')} tells how the denoiser was distilled; say --recipe ${RECIPES.join(', ')}. Wan's own checkpoints are not distilled: they need 50 steps with guidance, which is not offered.`));

/** Whether the folders hold everything that a model needs, and it is known how to sample it. */
export const isComplete = (folders: readonly ComponentFolder[]): boolean => {
	const parts = folders.flatMap(({ components }) => components);
	const kinds = new Set<string>(parts.map(({ component }) => component));
	return folders.some(({ tokenizer }) => tokenizer !== undefined) && kinds.has('text') && (kinds.has('vae') || kinds.has('taehv'))
		&& parts.some(({ component, recipe, kind }) => component === 'dit' && (recipe !== undefined || kind === 'turbo-dit'));
};

const describe = (denoiser: Found, recipe: Recipe, hasImage: boolean): string =>
	`${denoiser.part.title}, ${recipe}: ${hasImage ? 'a picture and a text' : 'text'} to ${recipe === 'self-forcing' ? 'a stream' : 'whole clips'}`;

const sampling = (recipe: Recipe, facts: { readonly hasImage: boolean; readonly hasExperts: boolean }): Pick<JoinedModel, 'clip' | 'stream'> => {
	if (recipe === 'self-forcing') {
		return { stream: { ...SELF_FORCING_STREAM, schedules: { ...SELF_FORCING_SCHEDULES } } };
	}
	const { ratio, blockQueries, blockKeys } = TURBO_ATTENTION;
	return {
		clip: {
			latents: CLIP_LATENTS, sigma_max: facts.hasImage ? SIGMA_MAX.imageToVideo : SIGMA_MAX.textToVideo,
			...(facts.hasExperts ? { boundary: EXPERT_BOUNDARY } : {}),
			...(recipe === 'turbodiffusion' ? { attention: { ratio, block_queries: blockQueries, block_keys: blockKeys } } : {}),
		},
	};
};

const modelOf = (opened: readonly Opened[], name: string, request: JoinRequest): JoinedModel => {
	const names = opened.map((each) => each.name).join(', ');
	const need = (found: Found | undefined, what: string): Found => found ?? refuse(`None of ${names} holds ${what}; import it and join its folder too.`);
	const denoiser = need(find(opened, 'dit', name), 'a denoiser');
	const text = need(find(opened, 'text', name), 'a text encoder (umT5)');
	const withTokenizer = opened.find(({ folder }) => folder.tokenizer !== undefined) ?? refuse(`None of ${names} holds a tokenizer; import a folder that has spiece.model or tokenizer.json beside the text encoder.`);
	const [vae, taehv] = [find(opened, 'vae', name), find(opened, 'taehv', name)];
	const decoder = need(request.decoder === undefined ? vae ?? taehv : request.decoder === 'vae' ? vae : taehv, `a video decoder (${request.decoder ?? 'Wan VAE or TAEHV'})`);
	const recipe = recipeOf(denoiser, request.recipe);
	const { in_dim: inputs, out_dim: outputs } = denoiser.part.dimensions;
	const facts = { hasImage: inputs !== outputs, hasExperts: denoiser.part.expert !== undefined };
	const sizes = SIZES[denoiser.part.source.some((file) => file.includes('720')) ? '720p' : '480p'];
	const [[width, height]] = sizes;
	return {
		format: 2, name, title: describe(denoiser, recipe, facts.hasImage), license: [...new Set(opened.map(({ folder }) => folder.license))].join('; '),
		components: {
			denoiser: denoiser.ref, text: text.ref, tokenizer: `${withTokenizer.name === name ? '.' : withTokenizer.name}/tokenizer`, decoder: decoder.ref,
			...(facts.hasImage ? { encoder: need(vae, 'the Wan VAE, whose encoder reads the picture').ref } : {}),
		},
		fps: FPS, width, height, sizes: sizes.map((pair) => [...pair]),
		...sampling(recipe, facts), default_steps: DEFAULT_STEPS, sampler: 'renoise', examples: EXAMPLES,
	};
};

/** Writes the model's folder, or its `model.json` into the one folder that has everything, and opens it. Throws `invalid_option` or `model_invalid`. */
export const joinModel = async (request: JoinRequest): Promise<ModelFolder> => {
	const name = basename(request.to);
	const opened = await Promise.all(request.folders.map(async (each): Promise<Opened> => {
		const folder = await readComponentFolder(each.path);
		return { name: each.name, folder: folder ?? refuse(`${each.name} is no folder of imported networks; \`turbocast models\` lists those there are.`) };
	}));
	const json = `${JSON.stringify(modelOf(opened, name, request), undefined, '\t')}\n`;
	const isOwn = request.folders.some(({ path }) => path === request.to);
	if (!isOwn && await stat(request.to).then(() => true, () => false)) {
		refuse(`There is a model ${name} already; remove ${request.to} or choose another name.`);
	}
	if (isOwn) {
		const path = join(request.to, 'model.json');
		const unfinished = join(request.to, '.model.json');
		try {
			await writeFile(unfinished, json).catch(cannotWrite(path));
			await rename(unfinished, path).catch(cannotWrite(path));
		} finally {
			await rm(unfinished, { force: true });
		}
		return openModelFolder(request.to);
	}
	// References lead to folders beside this one, so the unfinished folder must lie where the finished one will.
	await makeWholeFolder(request.to, async (unfinished) => {
		await writeFile(join(unfinished, 'model.json'), json).catch(cannotWrite(request.to));
		await openModelFolder(unfinished);
	});
	return openModelFolder(request.to);
};
