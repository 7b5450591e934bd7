/** What may be asked of a session that runs, held against the model, and put down for the next chunk. */
import { framesBeforeChunk } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { ClientMessages, ServerMessages } from '../protocol/messages.js';
import type { ChangedInputs } from './change-log.js';
import type { Member } from './member.js';
import type { SessionParts } from './session-parts.js';
import type { SessionRun } from './session-run.js';
import { checkControls, checkSteps } from './start-request.js';

export type Steering = ClientMessages['session.update' | 'input.action'];

/** The changes of a message. Throws `invalid_request` or `not_supported`. */
const changesOf = (message: Steering, { engine }: Pick<SessionParts, 'engine'>): ChangedInputs => {
	if (message.type === 'input.action') {
		if (message.at !== undefined) {
			throw new TurbocastError('not_supported', 'This server does not know `at` yet.', { param: 'at' });
		}
		return { controls: checkControls(engine.model, message.axes) };
	}
	for (const field of ['prompts', 'transition', 'seed', 'pacing', 'at'] as const) {
		if (message[field] !== undefined) {
			throw new TurbocastError('not_supported', `This server does not know \`${field}\` in session.update yet.`, { param: field });
		}
	}
	const { prompt } = message;
	const steps = message.parameters?.steps;
	if (prompt === undefined && steps === undefined) {
		throw new TurbocastError('invalid_request', 'session.update changes nothing: give a `prompt` or `parameters.steps`.');
	}
	return { prompt, steps: steps === undefined ? undefined : checkSteps(engine.model, steps) };
};

/** Word that a change will be heard. */
export const acceptedMessage = (eventId: string | undefined, run: SessionRun, prompt: string | undefined, { engine }: Pick<SessionParts, 'engine'>): ServerMessages['event.accepted'] => ({
	type: 'event.accepted', ...(eventId === undefined ? {} : { event_id: eventId }),
	will_apply_at_chunk: run.changes.nextChunkIndex,
	will_apply_at_media_ms: (framesBeforeChunk(engine.model, run.changes.nextChunkIndex) * 1000) / engine.model.fps,
	unknown_words: prompt === undefined ? [] : engine.unknownWords(prompt),
});

/** Takes a change for the next chunk and says so. Throws what is wrong with it; then nothing has changed. */
export const steer = (message: Steering, author: Member, run: SessionRun, parts: Pick<SessionParts, 'engine' | 'clock'>): ServerMessages['event.accepted'] => {
	const inputs = changesOf(message, parts);
	if (inputs.steps !== undefined) {
		run.ticket.useSteps(inputs.steps);
	}
	run.changes.add({ eventId: message.event_id, receivedAtMs: parts.clock.nowMs(), author }, inputs);
	if (inputs.prompt !== undefined) {
		parts.engine.prepare(inputs.prompt);
	}
	return acceptedMessage(message.event_id, run, inputs.prompt, parts);
};
