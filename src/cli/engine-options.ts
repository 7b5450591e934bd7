/** What an engine process is started with, from the configuration. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Log } from '../base/log.js';
import type { Config } from '../config.js';
import { chooseDevice } from '../engine/device-choice.js';
import type { EngineProcessOptions } from '../engine/engine-child.js';
import { chooseRecordings } from '../engine/recording-choice.js';
import { openModelFolder } from '../model/model-folder.js';
import { isOwnModel } from '../model/spec.js';
import { modelPath } from './models-folder.js';

const cacheFolder = (configured: string): string =>
	(configured === '' ? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'turbocast', 'embeddings') : resolve(configured));

/** On what an engine computes. */
export type EngineDevice = Pick<EngineProcessOptions, 'profile' | 'kernels' | 'recordsForwards'>;

/**
 * Chooses what the engine computes on, and says so in one line of the log. Without a graphics card nothing is started for it. Throws `device_wrong`,
 * `device_unavailable` or `invalid_config`, and what opening the model's folder throws.
 */
export const chosenDevice = async ({ engine }: Pick<Config, 'engine'>, log: Log): Promise<EngineDevice> => {
	const { spec } = await openModelFolder(modelPath(engine.models_dir, engine.model), { verify: false });
	const { profile, why, kernels } = await chooseDevice({ device: engine.device, profile: engine.profile, threads: engine.threads, isOwnModel: isOwnModel(spec), kernels: engine.kernels });
	const recordings = await chooseRecordings({ mode: engine.cuda_graphs, profile, kernels: kernels?.areUsed ?? false, threads: engine.threads, isStream: spec.clip === undefined });
	const told = Object.entries({ kernels, cudaGraphs: recordings }).flatMap(([name, choice]) => (choice === undefined ? [] : [[name, `${choice.areUsed ? 'used' : 'not used'}: ${choice.why}`]]));
	log.info({ profile, why, ...Object.fromEntries(told) as { readonly [name: string]: string } }, 'Device chosen.');
	return { profile, kernels: kernels?.areUsed ?? false, recordsForwards: recordings?.areUsed ?? false };
};

/** Throws `model_not_found` when the model's name could lead elsewhere. */
export const engineOptions = ({ engine }: Pick<Config, 'engine'>, { profile, kernels, recordsForwards }: EngineDevice): EngineProcessOptions => ({
	modelFolder: modelPath(engine.models_dir, engine.model),
	profile,
	kernels,
	recordsForwards,
	threads: engine.threads,
	batch: engine.batch,
	maxStreams: engine.max_streams,
	residency: engine.residency,
	...(engine.embedding_cache_bytes === 0 ? {} : { embeddingCache: { folder: cacheFolder(engine.embedding_cache_dir), maxBytes: engine.embedding_cache_bytes } }),
});
