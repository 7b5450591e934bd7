/** What a `session.start` asks for, held against the model that is here. */
import type { ChunkInputs } from '../engine/protocol.js';
import { checkSize } from '../model/sizes.js';
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ClientMessages } from '../protocol/messages.js';

export type StartRequest = {
	readonly inputs: ChunkInputs;
	readonly width: number;
	readonly height: number;
	readonly seed: number;
};

/** Throws `invalid_request` naming `parameters.steps` unless the model has a schedule of that many steps. */
export const checkSteps = (spec: ModelSpec, steps: number): number => {
	if (!Object.hasOwn(spec.schedules, String(steps))) {
		throw new TurbocastError('invalid_request', `\`parameters.steps\` must be one of ${Object.keys(spec.schedules).join(', ')} for the model ${spec.name}, not ${steps}.`, { param: 'parameters.steps' });
	}
	return steps;
};

const sizeOf = (spec: ModelSpec, size: string | undefined): { width: number; height: number } => {
	const [width = spec.width, height = spec.height] = size?.split('x').map(Number) ?? [];
	checkSize(spec, width, height);
	return { width, height };
};

/** Throws `model_not_found` or `invalid_request`. `defaultSteps` 0 stands for the model's own. */
export const resolveStart = (message: ClientMessages['session.start'], spec: ModelSpec, defaultSteps: number, randomSeed: () => number): StartRequest => {
	if (message.model !== undefined && message.model !== spec.name) {
		throw new TurbocastError('model_not_found', `There is no model "${message.model}" here; this server runs ${spec.name}.`, { param: 'model' });
	}
	if (message.resume_token !== undefined || message.prompts !== undefined || message.pacing !== undefined) {
		throw new TurbocastError('not_supported', 'This server does not know `resume_token`, `prompts` and `pacing` yet; start with a `prompt`.');
	}
	if (message.prompt === undefined) {
		throw new TurbocastError('invalid_request', '`prompt` is missing; say what should be seen.', { param: 'prompt' });
	}
	const steps = checkSteps(spec, message.parameters?.steps ?? (defaultSteps === 0 ? spec.default_steps : defaultSteps));
	return { inputs: { prompt: message.prompt, steps, controls: {} }, ...sizeOf(spec, message.size), seed: message.seed ?? randomSeed() };
};

/** The control values of an `input.action`. Throws `invalid_request` naming an unknown control or one out of range. */
export const checkControls = (spec: ModelSpec, axes: { readonly [name: string]: number }): { readonly [name: string]: number } => {
	for (const [name, value] of Object.entries(axes)) {
		const control = spec.controls.find((known) => known.name === name);
		const param = `axes.${name}`;
		if (control === undefined) {
			const known = spec.controls.length === 0 ? 'it has none' : `it has ${spec.controls.map((entry) => entry.name).join(', ')}`;
			throw new TurbocastError('invalid_request', `\`${param}\` is not a control of the model ${spec.name}; ${known}.`, { param });
		}
		if (value < control.min || value > control.max) {
			throw new TurbocastError('invalid_request', `\`${param}\` must be from ${control.min} to ${control.max}, not ${value}.`, { param });
		}
	}
	return axes;
};
