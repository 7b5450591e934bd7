/** What an engine process is started with, from the configuration. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Log } from '../base/log.js';
import type { Config } from '../config.js';
import { chooseDevice } from '../engine/device-choice.js';
import type { EngineProcessOptions } from '../engine/engine-child.js';
import { openModelFolder } from '../model/model-folder.js';
import { isOwnModel } from '../model/spec.js';
import { modelPath } from './models-folder.js';

const cacheFolder = (configured: string): string =>
	(configured === '' ? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'turbocast', 'embeddings') : resolve(configured));

/** On what an engine computes. */
export type EngineDevice = Pick<EngineProcessOptions, 'profile' | 'kernels'>;

/**
 * Chooses what the engine computes on, and says so in one line of the log. Without a graphics card nothing is started for it. Throws `device_wrong`,
 * `device_unavailable` or `invalid_config`, and what opening the model's folder throws.
 */
export const chosenDevice = async ({ engine }: Pick<Config, 'engine'>, log: Log): Promise<EngineDevice> => {
	const { spec } = await openModelFolder(modelPath(engine.models_dir, engine.model), { verify: false });
	const { profile, why, kernels } = await chooseDevice({ device: engine.device, profile: engine.profile, threads: engine.threads, isOwnModel: isOwnModel(spec), kernels: engine.kernels });
	log.info({ profile, why, ...(kernels === undefined ? {} : { kernels: `${kernels.areUsed ? 'used' : 'not used'}: ${kernels.why}` }) }, 'Device chosen.');
	return { profile, kernels: kernels?.areUsed ?? false };
};

/** Throws `model_not_found` when the model's name could lead elsewhere. */
export const engineOptions = ({ engine }: Pick<Config, 'engine'>, { profile, kernels }: EngineDevice): EngineProcessOptions => ({
	modelFolder: modelPath(engine.models_dir, engine.model),
	profile,
	kernels,
	threads: engine.threads,
	batch: engine.batch,
	maxStreams: engine.max_streams,
	residency: engine.residency,
	...(engine.embedding_cache_bytes === 0 ? {} : { embeddingCache: { folder: cacheFolder(engine.embedding_cache_dir), maxBytes: engine.embedding_cache_bytes } }),
});
