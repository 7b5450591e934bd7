/** What may be asked of a session that runs, held against the model, and put down for its chunk. */
import type { ModelSpec } from '../model/spec.js';
import { TurbocastError } from '../protocol/errors.js';
import type { At, ClientMessages, ServerMessages } from '../protocol/messages.js';
import type { SessionParts } from './session-parts.js';
import type { SessionRun } from './session-run.js';
import { checkControls, checkLead, checkSteps, promptsOf } from './start-request.js';
import type { Member } from './member.js';
import type { ChangedInputs, Mixture } from './steering-state.js';

export type Steering = ClientMessages['session.update' | 'input.action' | 'session.reset'];

export type SteeringParts = Pick<SessionParts, 'engine' | 'clock' | 'config' | 'randomUint32'>;

const updateOf = (message: ClientMessages['session.update'], model: ModelSpec): ChangedInputs => {
	const prompts = promptsOf(message);
	const { transition, seed } = message;
	const steps = message.parameters?.steps;
	if (transition !== undefined && prompts === undefined) {
		throw new TurbocastError('invalid_request', '`transition` needs a `prompt` or `prompts` to go to.', { param: 'transition' });
	}
	if (prompts === undefined && steps === undefined && seed === undefined && message.pacing?.max_lead_ms === undefined) {
		throw new TurbocastError('invalid_request', 'session.update changes nothing: give a `prompt`, `prompts`, `seed`, `parameters.steps` or `pacing.max_lead_ms`.');
	}
	if (transition?.chunks !== undefined && transition.mode !== 'blend') {
		throw new TurbocastError('invalid_request', `\`transition.chunks\` is for a blend; ${transition.mode} happens at once.`, { param: 'transition.chunks' });
	}
	return { prompts, transition, seed, steps: steps === undefined ? undefined : checkSteps(model, steps) };
};

const inputsOf = (message: Steering, { engine, randomUint32 }: SteeringParts): ChangedInputs => {
	switch (message.type) {
		case 'session.update':
			return updateOf(message, engine.model);
		case 'input.action':
			return { controls: checkControls(engine.model, message.axes) };
		case 'session.reset':
			return { isReset: true, seed: message.seed ?? randomUint32() };
	}
};

/** The first chunk that starts then or later; 0 for the next one. */
const chunkOf = (at: At | undefined, { calendar }: SessionRun): number => {
	if (at === undefined) {
		return 0;
	}
	if ((at.chunk === undefined) === (at.media_ms === undefined)) {
		throw new TurbocastError('invalid_request', '`at` needs either `chunk` or `media_ms`.', { param: 'at' });
	}
	if (at.chunk !== undefined) {
		return at.chunk;
	}
	return calendar.chunkAt(at.media_ms ?? 0);
};

/** Words of all texts that the model has never learnt, each once. */
const unknownWords = (prompts: Mixture | undefined, { engine }: Pick<SessionParts, 'engine'>): string[] =>
	[...new Set((prompts ?? []).flatMap(({ text }) => engine.unknownWords(text)))];

/** Word that a change will be heard. */
export const acceptedMessage = (
	eventId: string | undefined, chunkIndex: number, prompts: Mixture | undefined, { calendar }: SessionRun, parts: Pick<SessionParts, 'engine'>,
): ServerMessages['event.accepted'] => ({
	type: 'event.accepted', ...(eventId === undefined ? {} : { event_id: eventId }),
	will_apply_at_chunk: chunkIndex,
	will_apply_at_media_ms: calendar.mediaMsOf(chunkIndex),
	unknown_words: unknownWords(prompts, parts),
});

/** Takes a change for its chunk and says so. Throws what is wrong with it; then nothing has changed. */
export const steer = (message: Steering, author: Member, run: SessionRun, parts: SteeringParts): ServerMessages['event.accepted'] => {
	const { engine, clock, config } = parts;
	const inputs = inputsOf(message, parts);
	const atChunk = chunkOf(message.type === 'session.reset' ? undefined : message.at, run);
	const leadMs = message.type === 'session.update' && message.pacing?.max_lead_ms !== undefined ? checkLead(message.pacing.max_lead_ms, config.maxLeadMs) : undefined;
	if (inputs.steps !== undefined) {
		run.ticket.useSteps(inputs.steps);
	}
	const chunkIndex = run.changes.add({ eventId: message.event_id, receivedAtMs: clock.nowMs(), author }, inputs, atChunk);
	inputs.prompts?.forEach(({ text }) => engine.prepare(text));
	// Not for controls, which change all the time: the world would run fast for as long as somebody steers.
	if ((inputs.prompts !== undefined || inputs.isReset === true) && chunkIndex === run.changes.nextChunkIndex) {
		run.line.changeWaits();
	}
	if (leadMs !== undefined) {
		run.setMaxLead(leadMs, message.event_id);
	}
	return acceptedMessage(message.event_id, chunkIndex, inputs.prompts, run, parts);
};
