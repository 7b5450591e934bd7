/**
 * The one table of error codes. A code is part of the public contract: the server sends it, the SDK shows it and
 * `docs/errors.md` explains it; a test holds the three together. A code is never reused for another meaning.
 */

export type ErrorEntry = {
	/** Status of an HTTP answer that carries this code. */
	readonly httpStatus: number;
	/** WebSocket close code (RFC 6455 section 7.4) used when this error ends a connection. */
	readonly closeCode: number;
	/** Whether the same request may succeed later without being changed. */
	readonly retryable: boolean;
	/** One sentence for people; factories add what is particular to the case. */
	readonly summary: string;
};

export const ERRORS = {
	invalid_message: { httpStatus: 400, closeCode: 4400, retryable: false, summary: 'The message is not valid JSON text of a known type.' },
	invalid_request: { httpStatus: 400, closeCode: 4400, retryable: false, summary: 'A field is missing, of the wrong type or out of range.' },
	invalid_prompt: { httpStatus: 400, closeCode: 4400, retryable: false, summary: 'The prompt is empty, too long or not text.' },
	invalid_sdp: { httpStatus: 400, closeCode: 4400, retryable: false, summary: 'The offer is not a session description that can be answered.' },
	invalid_config: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'The configuration has a mistake.' },
	invalid_option: { httpStatus: 400, closeCode: 4400, retryable: false, summary: 'A command-line option is unknown or has a value that cannot be used.' },
	unauthorized: { httpStatus: 401, closeCode: 4401, retryable: false, summary: 'No valid credentials were given.' },
	token_expired: { httpStatus: 401, closeCode: 4401, retryable: false, summary: 'The client secret is no longer valid.' },
	forbidden: { httpStatus: 403, closeCode: 4403, retryable: false, summary: 'This origin or token may not do that.' },
	license_not_accepted: { httpStatus: 403, closeCode: 4403, retryable: false, summary: 'The licence of the weights was not accepted.' },
	not_found: { httpStatus: 404, closeCode: 4404, retryable: false, summary: 'There is nothing at this address.' },
	session_not_found: { httpStatus: 404, closeCode: 4404, retryable: false, summary: 'The session of this token has ended, or there never was one.' },
	model_not_found: { httpStatus: 404, closeCode: 4404, retryable: false, summary: 'No model of that name is installed.' },
	method_not_allowed: { httpStatus: 405, closeCode: 4400, retryable: false, summary: 'This address does not answer that method.' },
	not_acceptable: { httpStatus: 406, closeCode: 4406, retryable: false, summary: 'The client takes no form of answer that there is.' },
	unsupported_protocol: { httpStatus: 406, closeCode: 4406, retryable: false, summary: 'The sub-protocol offered is not spoken here.' },
	start_timeout: { httpStatus: 408, closeCode: 4408, retryable: true, summary: 'No session was started in time.' },
	idle_timeout: { httpStatus: 408, closeCode: 4408, retryable: true, summary: 'Nobody was watching or steering for too long.' },
	invalid_state: { httpStatus: 409, closeCode: 4409, retryable: false, summary: 'That is not possible in the present state of the session.' },
	session_taken_over: { httpStatus: 409, closeCode: 4409, retryable: false, summary: 'Another connection went on with this session.' },
	max_duration: { httpStatus: 410, closeCode: 4410, retryable: false, summary: 'The session reached its longest duration.' },
	precondition_failed: { httpStatus: 412, closeCode: 4412, retryable: false, summary: 'The ICE session was restarted meanwhile.' },
	message_too_big: { httpStatus: 413, closeCode: 1009, retryable: false, summary: 'The message is larger than the limit.' },
	unsupported_media_type: { httpStatus: 415, closeCode: 4415, retryable: false, summary: 'The body is of a type that is not read here.' },
	unsupported_media: { httpStatus: 422, closeCode: 4422, retryable: false, summary: 'The offer asks for nothing that can be sent here.' },
	precondition_required: { httpStatus: 428, closeCode: 4428, retryable: false, summary: 'The request does not say which ICE session it is for.' },
	rate_limited: { httpStatus: 429, closeCode: 4429, retryable: true, summary: 'Too many messages in too short a time.' },
	model_invalid: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'The model folder does not describe a model that can be run.' },
	weights_corrupt: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'A weight file is damaged or is not the one that the model names.' },
	engine_failed: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'The engine stopped while it was generating.' },
	encoder_failed: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'The video encoder stopped.' },
	generation_invalid: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'The network produced numbers that are not a picture.' },
	transport_failed: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'The media connection could not be kept up.' },
	download_failed: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'A file could not be fetched from the hub.' },
	output_failed: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'The output file could not be written.' },
	port_in_use: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'Another program listens on that port.' },
	device_unavailable: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'The device that was asked for cannot be used on this machine.' },
	device_wrong: { httpStatus: 500, closeCode: 1011, retryable: false, summary: 'The device computes wrong numbers.' },
	internal: { httpStatus: 500, closeCode: 1011, retryable: true, summary: 'Something went wrong that should not have.' },
	not_supported: { httpStatus: 501, closeCode: 1011, retryable: false, summary: 'This server or model cannot do that.' },
	publish_refused: { httpStatus: 502, closeCode: 1011, retryable: false, summary: 'The WHIP endpoint does not take the video.' },
	publish_failed: { httpStatus: 502, closeCode: 1011, retryable: true, summary: 'The WHIP endpoint could not be reached, or the way to it was lost.' },
	capacity_exhausted: { httpStatus: 503, closeCode: 1013, retryable: true, summary: 'Every place is taken.' },
	hub_unreachable: { httpStatus: 503, closeCode: 1013, retryable: true, summary: 'The hub with the published weights cannot be reached.' },
	not_enough_memory: { httpStatus: 503, closeCode: 1013, retryable: false, summary: 'What was asked for needs more memory than there is.' },
	not_ready: { httpStatus: 503, closeCode: 1013, retryable: true, summary: 'The engine is still starting.' },
	draining: { httpStatus: 503, closeCode: 1013, retryable: true, summary: 'The server is shutting down.' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

export const ERROR_CODES = Object.keys(ERRORS) as ErrorCode[];

/** What else is known about a failure. */
export type ErrorDetail = {
	/** The field that is wrong, as a dotted path: `prompt`, `pacing.max_lead_ms`. */
	readonly param?: string | undefined;
	/** How long to wait before trying again. */
	readonly retryAfterMs?: number | undefined;
	readonly cause?: unknown;
};

/** An error with a code of the table. Everything that reaches a person or crosses a process is one of these. */
export class TurbocastError extends Error {
	override readonly name = 'TurbocastError';
	readonly code: ErrorCode;
	readonly param: string | undefined;
	readonly retryAfterMs: number | undefined;

	/** `message` is a whole sentence that says what is wrong and what to do about it. */
	constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}) {
		super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
		this.code = code;
		this.param = detail.param;
		this.retryAfterMs = detail.retryAfterMs;
	}

	get entry(): ErrorEntry {
		return ERRORS[this.code];
	}

	/** Passes our own errors through and wraps anything else under `code`. */
	static from(error: unknown, code: ErrorCode = 'internal'): TurbocastError {
		if (error instanceof TurbocastError) {
			return error;
		}
		const message = error instanceof Error ? error.message : String(error);
		return new TurbocastError(code, `${ERRORS[code].summary} (${message})`, { cause: error });
	}
}

export const isErrorCode = (value: unknown): value is ErrorCode =>
	typeof value === 'string' && Object.hasOwn(ERRORS, value);
