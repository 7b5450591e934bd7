/** A model as the protocol and `/v1/models` show it. */
import { framesPerChunk, type ModelSpec } from '../model/spec.js';
import { TRANSITION_MODES } from '../protocol/limits.js';
import type { ServerMessages } from '../protocol/messages.js';

export type ModelInfo = ServerMessages['session.created']['model'];

export const modelInfo = (spec: ModelSpec): ModelInfo => ({
	id: spec.name,
	title: spec.title,
	width: spec.width,
	height: spec.height,
	fps: spec.fps,
	frames_per_chunk: framesPerChunk(spec),
	steps: Object.keys(spec.schedules).map(Number).sort((a, b) => a - b),
	default_steps: spec.default_steps,
	controls: spec.controls.map(({ name, label, min, max, default: usual }) => ({ name, label, min, max, default: usual })),
	examples: [...spec.examples],
	// A clip has no past that could be seen again.
	transitions: spec.clip === undefined ? [...TRANSITION_MODES] : ['cut', 'blend'],
});
