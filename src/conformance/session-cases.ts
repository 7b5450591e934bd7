/** Cases of a session from start to stop, and of all that steers it. */
import { MAX_BLEND_CHUNKS, MAX_PROMPTS, MAX_SEED } from '../protocol/limits.js';
import type { ServerMessages } from '../protocol/messages.js';
import type { Connection } from './connection.js';
import { casesOf, change, chunkMs, ensureRefused, type ServerCase } from './server-case.js';
import { ensure, ensureEqual, skip } from './verdict.js';

/** Rounding of times to a tenth of a millisecond, several of them in a sum. */
const ROUNDING_MS = 1;
const FAR_CHUNK = 1_000_000;
/** As docs/protocol.md has it. */
const MOST_WAITING_CHANGES = 64;
/** Slow enough for any sensible limit of messages a second. */
const SLOWLY_MS = 20;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const orderOf = (connection: Connection, types: readonly string[]): string[] => connection.received.map(({ type }) => type).filter((type) => types.includes(type));

/** The next chunk that is completed from now on. */
const nextChunk = (connection: Connection): Promise<ServerMessages['chunk.completed']> => {
	connection.forget();
	return connection.next('chunk.completed');
};

export const SESSION_CASES: readonly ServerCase[] = [
	...casesOf('A session, message by message', {
		'a start is accepted, ready, generating, applied, in this order': async (subject) => {
			const { connection, created, ready } = await subject.start({ prompt: 'a cat jumps', seed: 7 });
			const order = ['session.created', 'event.accepted', 'session.ready', 'generation.started', 'event.applied'];
			ensureEqual(orderOf(connection, order), order, 'the order of messages');
			ensureEqual(ready.session_id, created.session_id, 'session_id of session.ready');
			ensureEqual([ready.seed, ready.resumed, ready.is_paused], [7, false, false], 'seed, resumed and is_paused of session.ready');
			ensureEqual(ready.prompts.map(({ text }) => text), ['a cat jumps'], 'prompts of session.ready');
			ensure(created.model.steps.includes(ready.steps), `steps of session.ready, ${ready.steps}, are not of the model`);
			ensure(ready.expires_in_ms <= created.limits.max_session_ms, 'expires_in_ms is longer than limits.max_session_ms');
			const started = await connection.next('generation.started');
			ensureEqual([started.chunk_index, started.seed, started.history], [0, 7, 'new'], 'chunk_index, seed and history of generation.started');
		},
		'steering before session.start is invalid_state': async (subject) => {
			const { connection } = await subject.open();
			for (const message of [
				{ type: 'session.update', prompt: 'x' }, { type: 'input.action', axes: {} }, { type: 'session.pause' }, { type: 'session.resume' }, { type: 'session.reset' }, { type: 'session.fork' },
			]) {
				await ensureRefused(connection, message, 'invalid_state');
			}
		},
		'a second session.start is invalid_state, and the session goes on': async (subject) => {
			const { connection } = await subject.start();
			await ensureRefused(connection, { type: 'session.start', prompt: 'a dog' }, 'invalid_state');
			await nextChunk(connection);
		},
		'session.stop ends with session.ended, stopped, close 1000': async (subject) => {
			const { connection, created } = await subject.start();
			connection.send({ type: 'session.stop' });
			const ended = await connection.next('session.ended');
			ensureEqual([ended.reason, ended.session_id], ['stopped', created.session_id], 'reason and session_id');
			ensure(ended.frames > 0, 'frames is 0');
			ensureEqual((await connection.closed()).code, 1000, 'the close code');
		},
		'a connection that started nothing may stop, too': async (subject) => {
			const { connection } = await subject.open();
			connection.send({ type: 'session.stop' });
			ensureEqual((await connection.next('session.ended')).frames, 0, 'frames');
			ensureEqual((await connection.closed()).code, 1000, 'the close code');
		},
	}),
	...casesOf('`session.start`', {
		'each wrong field is named, nothing is started, and a right start works afterwards': async (subject) => {
			const { connection, created } = await subject.open();
			const { limits, model } = created;
			const wrong = (fields: object, code: 'invalid_prompt' | 'invalid_request' | 'model_not_found', param?: string): Promise<unknown> => ensureRefused(connection, { type: 'session.start', ...fields }, code, param);
			await wrong({ prompt: '' }, 'invalid_prompt', 'prompt');
			await wrong({ prompt: ' \n ' }, 'invalid_prompt', 'prompt');
			await wrong({ prompt: 'x'.repeat(limits.max_prompt_length + 1) }, 'invalid_prompt', 'prompt');
			await wrong({ prompt: 7 }, 'invalid_prompt', 'prompt');
			await wrong({}, 'invalid_request');
			await wrong({ prompt: 'a', prompts: [{ text: 'a', weight: 1 }] }, 'invalid_request');
			await wrong({ prompts: [] }, 'invalid_request', 'prompts');
			await wrong({ prompts: Array.from({ length: MAX_PROMPTS + 1 }, () => ({ text: 'a', weight: 1 })) }, 'invalid_request', 'prompts');
			await wrong({ prompts: [{ text: 'a', weight: 0 }] }, 'invalid_request', 'prompts.0.weight');
			await wrong({ prompt: 'a', seed: MAX_SEED + 1 }, 'invalid_request', 'seed');
			await wrong({ prompt: 'a', parameters: { steps: 64 } }, 'invalid_request', 'parameters.steps');
			await wrong({ prompt: 'a', size: 'large' }, 'invalid_request', 'size');
			await wrong({ prompt: 'a', pacing: { max_lead_ms: limits.max_lead_ms + 1 } }, 'invalid_request', 'pacing.max_lead_ms');
			await wrong({ prompt: 'a', pacing: { max_lead_ms: 99 } }, 'invalid_request', 'pacing.max_lead_ms');
			await wrong({ prompt: 'a', model: `${model.id.slice(0, 100)}-of-nobody` }, 'model_not_found', 'model');
			await subject.untilReady(connection, connection.ask({ type: 'session.start', prompt: 'a cat', model: model.id }));
		},
		'steps, seed, lead and weights are told as they are used': async (subject) => {
			const { model, limits } = (await subject.open()).created;
			const [steps = model.default_steps] = model.steps;
			const leadMs = Math.min(500, limits.max_lead_ms);
			const { ready, connection } = await subject.start({ prompts: [{ text: 'a cat', weight: 3 }, { text: 'a dog', weight: 1 }], seed: MAX_SEED, parameters: { steps }, pacing: { max_lead_ms: leadMs } });
			ensureEqual([ready.steps, ready.seed, ready.max_lead_ms], [steps, MAX_SEED, leadMs], 'steps, seed and max_lead_ms of session.ready');
			ensure(Math.abs((ready.prompts[0]?.weight ?? 0) - 0.75) < 1e-6, 'weights of session.ready are not those of their sum');
			const completed = await connection.next('chunk.completed');
			ensureEqual([completed.steps, completed.seed], [steps, MAX_SEED], 'steps and seed of chunk.completed');
		},
	}),
	...casesOf('`chunk.completed`', {
		'chunks follow each other without a gap, in number, frames and media time': async (subject) => {
			const { connection, created } = await subject.start();
			let before = await connection.next('chunk.completed');
			ensureEqual([before.chunk_index, before.first_frame_id], [0, 0], 'chunk_index and first_frame_id of the first chunk');
			for (let count = 0; count < 3; count += 1) {
				const chunk = await connection.next('chunk.completed');
				ensureEqual([chunk.chunk_index, chunk.first_frame_id], [before.chunk_index + 1, before.first_frame_id + before.frames], 'chunk_index and first_frame_id');
				ensure(Math.abs(chunk.media_ms - (chunk.first_frame_id * 1000) / created.model.fps) < ROUNDING_MS, `media_ms ${chunk.media_ms} is not that of frame ${chunk.first_frame_id}`);
				ensure(chunk.t_completed_ms >= chunk.t_started_ms && chunk.t_started_ms >= before.t_started_ms, 't_started_ms and t_completed_ms are not in order');
				before = chunk;
			}
		},
		'generation stays within the lead and a chunk': async (subject) => {
			const { connection, created } = await subject.start({ prompt: 'a cat', pacing: { max_lead_ms: 100 } });
			for (let count = 0; count < 4; count += 1) {
				const { lead_ms: leadMs, fps } = await connection.next('chunk.completed');
				// Frames that are shown slower last longer.
				const mostMs = ((100 + chunkMs(created)) * created.model.fps) / fps + ROUNDING_MS;
				ensure(leadMs <= mostMs, `lead_ms is ${leadMs} with max_lead_ms 100, chunks of ${chunkMs(created)} ms and ${fps} of ${created.model.fps} frames a second`);
			}
		},
	}),
	...casesOf('When a change is heard', {
		'a change is accepted for a chunk, and applied with that chunk': async (subject) => {
			const { connection } = await subject.start();
			const { accepted, applied } = await change(connection, { type: 'session.update', prompt: 'a dog sleeps' });
			ensureEqual(applied.chunk_index, accepted.will_apply_at_chunk, 'chunk_index of event.applied');
			const { wait_ms: wait, generate_ms: generate, hold_ms: hold, encode_ms: encode } = applied.timings;
			ensure(Math.abs(wait + generate + hold + encode - applied.server_latency_ms) <= ROUNDING_MS, `timings of event.applied add up to ${wait + generate + hold + encode} instead of server_latency_ms ${applied.server_latency_ms}`);
		},
		'at.chunk puts a change off to that chunk': async (subject) => {
			const { connection } = await subject.start();
			const { chunk_index: now } = await nextChunk(connection);
			const { accepted, applied } = await change(connection, { type: 'session.update', prompt: 'a dog', at: { chunk: now + 4 } });
			ensureEqual([accepted.will_apply_at_chunk, applied.chunk_index], [now + 4, now + 4], 'the chunk accepted for and applied with');
		},
		'at.media_ms puts a change off to the first chunk that starts then or later': async (subject) => {
			const { connection, created } = await subject.start();
			const { media_ms: nowMs } = await nextChunk(connection);
			const wantedMs = nowMs + 4.5 * chunkMs(created);
			const { accepted, applied } = await change(connection, { type: 'session.update', prompt: 'a dog', at: { media_ms: wantedMs } });
			const atMs = accepted.will_apply_at_media_ms;
			ensure(atMs >= wantedMs - ROUNDING_MS && atMs < wantedMs + chunkMs(created) + ROUNDING_MS, `will_apply_at_media_ms is ${atMs} for ${wantedMs}, with chunks of ${chunkMs(created)} ms`);
			ensureEqual(applied.chunk_index, accepted.will_apply_at_chunk, 'chunk_index of event.applied');
		},
		'a moment that has passed is the next chunk': async (subject) => {
			const { connection } = await subject.start();
			const { chunk_index: now } = await nextChunk(connection);
			const { accepted } = await change(connection, { type: 'session.update', prompt: 'a dog', at: { chunk: 0 } });
			ensure(accepted.will_apply_at_chunk > now, `will_apply_at_chunk is ${accepted.will_apply_at_chunk} after chunk ${now} was completed`);
		},
		'changes for the same chunk are taken in the order of their arrival': async (subject) => {
			const { connection } = await subject.start();
			const at = { chunk: (await nextChunk(connection)).chunk_index + 4 };
			const ids = [11, 12].map((seed) => connection.ask({ type: 'session.update', seed, at }));
			for (const id of ids) {
				ensureEqual((await connection.next('event.applied', ({ event_id: each }) => each === id)).chunk_index, at.chunk, 'chunk_index of event.applied');
			}
			ensureEqual((await connection.next('chunk.completed', ({ chunk_index: index }) => index === at.chunk)).seed, 12, 'the seed of the chunk');
		},
		'at needs one of chunk and media_ms': async (subject) => {
			const { connection } = await subject.start();
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', at: {} }, 'invalid_request', 'at');
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', at: { chunk: 1, media_ms: 1 } }, 'invalid_request', 'at');
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', at: { chunk: -1 } }, 'invalid_request', 'at.chunk');
		},
		'at most 64 changes wait': async (subject) => {
			const { connection } = await subject.start();
			for (let count = 0; count < MOST_WAITING_CHANGES; count += 1) {
				const eventId = connection.ask({ type: 'session.update', seed: count, at: { chunk: FAR_CHUNK } });
				ensureEqual((await connection.answer('event.accepted', eventId)).will_apply_at_chunk, FAR_CHUNK, 'will_apply_at_chunk');
				await sleep(SLOWLY_MS);
			}
			await ensureRefused(connection, { type: 'session.update', seed: 1, at: { chunk: FAR_CHUNK } }, 'rate_limited');
		},
	}),
	...casesOf('Prompts and transitions', {
		'every transition of the model is applied, and a cut begins anew': async (subject) => {
			const { connection, created } = await subject.start();
			for (const mode of created.model.transitions) {
				connection.forget();
				const { applied } = await change(connection, { type: 'session.update', prompt: `a dog, by ${mode}`, transition: { mode, ...(mode === 'blend' ? { chunks: 2 } : {}) } });
				const started = connection.received.filter((message) => message.type === 'generation.started').at(-1);
				if (mode === 'cut') {
					ensureEqual([started?.chunk_index, started?.history], [applied.chunk_index, 'new'], 'chunk_index and history of generation.started after a cut');
				} else {
					ensure(started?.chunk_index !== applied.chunk_index, `${mode} forgot the past: generation.started came with it`);
				}
			}
		},
		'a transition needs a prompt, and only a blend has chunks': async (subject) => {
			const { connection } = await subject.start();
			await ensureRefused(connection, { type: 'session.update', seed: 1, transition: { mode: 'cut' } }, 'invalid_request', 'transition');
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', transition: { mode: 'fade' } }, 'invalid_request', 'transition.mode');
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', transition: { mode: 'blend', chunks: MAX_BLEND_CHUNKS + 1 } }, 'invalid_request', 'transition.chunks');
			await ensureRefused(connection, { type: 'session.update', prompt: 'x', transition: { mode: 'cut', chunks: 2 } }, 'invalid_request', 'transition.chunks');
		},
	}),
	...casesOf('`session.update`', {
		'steps and seed hold from their chunk on': async (subject) => {
			const { connection, created } = await subject.start();
			for (const steps of created.model.steps) {
				connection.forget();
				const { applied } = await change(connection, { type: 'session.update', parameters: { steps }, seed: steps });
				const chunk = await connection.next('chunk.completed', ({ chunk_index: index }) => index >= applied.chunk_index);
				ensureEqual([chunk.steps, chunk.seed], [steps, steps], 'steps and seed of chunk.completed');
			}
			await ensureRefused(connection, { type: 'session.update', parameters: { steps: 64 } }, 'invalid_request', 'parameters.steps');
		},
		'an update that changes nothing, or has two prompts, is invalid_request': async (subject) => {
			const { connection } = await subject.start();
			await ensureRefused(connection, { type: 'session.update' }, 'invalid_request');
			await ensureRefused(connection, { type: 'session.update', prompt: 'a', prompts: [{ text: 'b', weight: 1 }] }, 'invalid_request');
			await ensureRefused(connection, { type: 'session.update', prompt: '' }, 'invalid_prompt', 'prompt');
		},
		'the lead is changed at once, and told in pacing.updated': async (subject) => {
			const { connection, created } = await subject.start();
			const eventId = connection.ask({ type: 'session.update', pacing: { max_lead_ms: 100 } });
			const updated = await connection.answer('pacing.updated', eventId);
			ensureEqual([updated.reason, updated.max_lead_ms], ['requested', 100], 'reason and max_lead_ms');
			await ensureRefused(connection, { type: 'session.update', pacing: { max_lead_ms: created.limits.max_lead_ms + 1 } }, 'invalid_request', 'pacing.max_lead_ms');
		},
	}),
	...casesOf('`input.action`', {
		'controls within their range are applied': async (subject) => {
			const { connection, created } = await subject.start();
			const { controls } = created.model;
			if (controls.length === 0) {
				return skip('the model has no controls');
			}
			await change(connection, { type: 'input.action', axes: { [controls[0]?.name ?? '']: controls[0]?.max } });
			await change(connection, { type: 'input.action', axes: Object.fromEntries(controls.map(({ name, min }) => [name, min])) });
		},
		'an unknown control and a value out of range are invalid_request, and name it': async (subject) => {
			const { connection, created } = await subject.start();
			await ensureRefused(connection, { type: 'input.action', axes: { of_nobody: 0 } }, 'invalid_request', 'axes.of_nobody');
			for (const { name, max } of created.model.controls) {
				await ensureRefused(connection, { type: 'input.action', axes: { [name]: max + 1 } }, 'invalid_request', `axes.${name}`);
			}
			await ensureRefused(connection, { type: 'input.action' }, 'invalid_request', 'axes');
		},
	}),
	...casesOf('`session.pause`', {
		'a pause begins no other chunk, takes changes, and is over with session.resume': async (subject) => {
			const { connection, created } = await subject.start();
			const { t_started_ms: startedMs, t_completed_ms: completedMs } = await nextChunk(connection);
			await connection.answer('session.paused', connection.ask({ type: 'session.pause' }));
			connection.forget();
			const before = connection.received.length;
			const eventId = connection.ask({ type: 'session.update', prompt: 'a dog' });
			await connection.answer('event.accepted', eventId);
			// Time enough for others, on a server that is slower than it plays, too.
			await sleep(4 * Math.max(chunkMs(created), completedMs - startedMs));
			await connection.assertAlive();
			const meanwhile = connection.received.slice(before).map(({ type }) => type);
			ensure(meanwhile.filter((type) => type === 'chunk.completed').length <= 1, 'more than the chunk at hand was made during the pause');
			ensure(!meanwhile.includes('event.applied'), 'a change was applied during the pause');
			await connection.answer('session.resumed', connection.ask({ type: 'session.resume' }));
			await connection.next('event.applied', ({ event_id: id }) => id === eventId);
		},
	}),
	...casesOf('`session.reset`', {
		'a reset forgets the past and takes the seed': async (subject) => {
			const { connection } = await subject.start();
			connection.forget();
			const { accepted, applied } = await change(connection, { type: 'session.reset', seed: 77 });
			const started = await connection.next('generation.started');
			ensureEqual([started.chunk_index, started.seed, started.history], [accepted.will_apply_at_chunk, 77, 'new'], 'chunk_index, seed and history of generation.started');
			ensureEqual(applied.chunk_index, started.chunk_index, 'chunk_index of event.applied');
		},
	}),
];
