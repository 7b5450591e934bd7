/** What a `session.start` asks for, held against the model that is here. */
import { checkSize } from '../model/sizes.js';
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ClientMessages } from '../protocol/messages.js';
import { mixture, type Mixture, type SteeringState } from './steering-state.js';

export type StartRequest = {
	readonly state: SteeringState;
	readonly width: number;
	readonly height: number;
	readonly maxLeadMs: number;
};

/** What the server has where a request does not say. */
export type StartDefaults = { /** 0 stands for the model's own. */ readonly steps: number; readonly maxLeadMs: number; readonly randomSeed: () => number };

/** Throws `invalid_request` naming `parameters.steps` unless the model has a schedule of that many steps. */
export const checkSteps = (spec: ModelSpec, steps: number): number => {
	if (!Object.hasOwn(spec.schedules, String(steps))) {
		throw new TurbocastError('invalid_request', `\`parameters.steps\` must be one of ${Object.keys(spec.schedules).join(', ')} for the model ${spec.name}, not ${steps}.`, { param: 'parameters.steps' });
	}
	return steps;
};

/** Throws `invalid_request` for more than the server allows. */
export const checkLead = (wantedMs: number, mostMs: number): number => {
	if (wantedMs > mostMs) {
		throw new TurbocastError('invalid_request', `\`pacing.max_lead_ms\` must be at most ${mostMs} on this server, not ${wantedMs}.`, { param: 'pacing.max_lead_ms' });
	}
	return wantedMs;
};

/** The prompt of a message, `undefined` when it has none. Throws `invalid_request` when it has two. */
export const promptsOf = ({ prompt, prompts }: Pick<ClientMessages['session.start'], 'prompt' | 'prompts'>): Mixture | undefined => {
	if (prompt !== undefined && prompts !== undefined) {
		throw new TurbocastError('invalid_request', 'Give `prompt` or `prompts`, not both.', { param: 'prompts' });
	}
	return prompts === undefined ? (prompt === undefined ? undefined : [{ text: prompt, weight: 1 }]) : mixture(prompts);
};

const sizeOf = (spec: ModelSpec, size: string | undefined): { width: number; height: number } => {
	const [width = spec.width, height = spec.height] = size?.split('x').map(Number) ?? [];
	checkSize(spec, width, height);
	return { width, height };
};

/** Throws `model_not_found` or `invalid_request`. */
export const resolveStart = (message: ClientMessages['session.start'], spec: ModelSpec, defaults: StartDefaults): StartRequest => {
	if (message.model !== undefined && message.model !== spec.name) {
		throw new TurbocastError('model_not_found', `There is no model "${message.model}" here; this server runs ${spec.name}.`, { param: 'model' });
	}
	if (spec.encoder !== undefined) {
		throw new TurbocastError('not_supported', `The model ${spec.name} makes a picture move, which live sessions cannot give it; use turbocast generate --image.`);
	}
	const prompts = promptsOf(message);
	if (prompts === undefined) {
		throw new TurbocastError('invalid_request', '`prompt` is missing; say what should be seen.', { param: 'prompt' });
	}
	const steps = checkSteps(spec, message.parameters?.steps ?? (defaults.steps === 0 ? spec.default_steps : defaults.steps));
	return {
		state: { prompts, steps, controls: {}, seed: message.seed ?? defaults.randomSeed() },
		...sizeOf(spec, message.size),
		maxLeadMs: checkLead(message.pacing?.max_lead_ms ?? defaults.maxLeadMs, defaults.maxLeadMs),
	};
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
