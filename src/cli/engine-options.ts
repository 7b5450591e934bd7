/** What an engine process is started with, from the configuration. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Config } from '../config.js';
import type { EngineProcessOptions } from '../engine/engine-child.js';
import { modelPath } from './models-folder.js';

const cacheFolder = (configured: string): string =>
	(configured === '' ? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'turbocast', 'embeddings') : resolve(configured));

/** Throws `model_not_found` when the model's name could lead elsewhere. */
export const engineOptions = ({ engine }: Pick<Config, 'engine'>): EngineProcessOptions => ({
	modelFolder: modelPath(engine.models_dir, engine.model),
	profile: engine.profile,
	threads: engine.threads,
	residency: engine.residency,
	...(engine.embedding_cache_bytes === 0 ? {} : { embeddingCache: { folder: cacheFolder(engine.embedding_cache_dir), maxBytes: engine.embedding_cache_bytes } }),
});
