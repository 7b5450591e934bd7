/** What a session says of itself, in the words of the protocol. */
import { MAX_MESSAGE_BYTES, MAX_PROMPT_LENGTH, MAX_PROMPTS, PROTOCOL_VERSION } from '../protocol/limits.js';
import type { EndReason, ServerMessages } from '../protocol/messages.js';
import type { SessionParts } from './session-parts.js';
import type { Continuation, SessionRun } from './session-run.js';

/** `resumeToken`: for the connection that has the session, and no other. */
export const createdMessage = (
	{ config, model, iceServers }: Pick<SessionParts, 'config' | 'model' | 'iceServers'>,
	{ id, maxMs, resumeToken }: { readonly id: string; readonly maxMs: number; readonly resumeToken: string | undefined },
): ServerMessages['session.created'] => ({
	type: 'session.created', session_id: id, protocol_version: PROTOCOL_VERSION, model,
	ice_servers: iceServers.list(id),
	...(resumeToken === undefined ? {} : { resume_token: resumeToken }),
	limits: {
		max_message_bytes: MAX_MESSAGE_BYTES, max_prompt_length: MAX_PROMPT_LENGTH, max_prompts: MAX_PROMPTS, max_session_ms: maxMs,
		idle_timeout_ms: config.idleTimeoutMs, start_timeout_ms: config.startTimeoutMs, resume_grace_ms: config.resumeGraceMs, max_lead_ms: config.maxLeadMs,
	},
});

export const readyMessage = (
	{ engine }: Pick<SessionParts, 'engine'>, run: SessionRun,
	about: { readonly id: string; readonly resumed: boolean; readonly resumeToken: string | undefined; readonly expiresInMs: number },
): ServerMessages['session.ready'] => {
	const { prompts, seed, steps, controls } = run.changes.state;
	const { width, height } = run.request;
	return {
		type: 'session.ready', session_id: about.id, model: engine.model.name, seed, steps, width, height,
		...(about.resumeToken === undefined ? {} : { resume_token: about.resumeToken }),
		cold_start_ms: engine.state.kind === 'ready' ? engine.state.coldStartMs : 0,
		resumed: about.resumed, is_paused: run.line.isPaused, prompts: prompts.map((part) => ({ ...part })), controls: { ...controls },
		max_lead_ms: run.line.maxLeadMs, expires_in_ms: about.expiresInMs,
	};
};

export const forkedMessage = (
	eventId: string | undefined, { lastFrame, snapshot }: Continuation, fps: number,
	fork: { readonly id: string; readonly resumeToken: string; readonly expiresInMs: number },
): ServerMessages['session.forked'] => ({
	type: 'session.forked', ...(eventId === undefined ? {} : { event_id: eventId }),
	session_id: fork.id, resume_token: fork.resumeToken, chunk_index: snapshot.nextChunkIndex,
	frame_id: lastFrame.frameId, media_ms: (lastFrame.frameId * 1000) / fps, expires_in_ms: fork.expiresInMs,
});

/** Whether display is held or goes on, and at which frame. */
export const pausedMessage = (eventId: string | undefined, { line, lastPlayed }: SessionRun): ServerMessages['session.paused' | 'session.resumed'] => ({
	type: line.isPaused ? 'session.paused' : 'session.resumed', ...(eventId === undefined ? {} : { event_id: eventId }), frame_id: lastPlayed.frameId, media_ms: lastPlayed.mediaMs,
});

export const endedMessage = (id: string, reason: EndReason, frames: number, fps: number): ServerMessages['session.ended'] =>
	({ type: 'session.ended', session_id: id, reason, generated_ms: (frames * 1000) / fps, frames });
