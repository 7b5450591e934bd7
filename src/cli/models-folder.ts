/** Where the models are: the ones that come with turbocast, or those of a folder that the operator names. */
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TurbocastError } from '../protocol/errors.js';

/** The package's own folder, from `dist/src/cli`. */
export const packageRoot = resolve(fileURLToPath(new URL('../../..', import.meta.url)));

export const modelsRoot = (configured: string): string => (configured === '' ? join(packageRoot, 'models') : resolve(configured));

/** The folder of one model. `model_not_found` when the name could lead elsewhere. */
export const modelPath = (configuredRoot: string, name: string): string => {
	if (!/^[\w][\w.-]*$/u.test(name)) {
		throw new TurbocastError('model_not_found', `"${name}" is not a model name; run \`turbocast models\` to see the names there are.`);
	}
	return join(modelsRoot(configuredRoot), name);
};
