/**
 * Logging, and the one door to pino. Levels: *error* = gave up, *warn* = recovered, *info* = one line per lifecycle
 * transition, *debug* = the rest. Prompts and addresses are personal data: they go only into the fields `prompt` and
 * `address`, which are left out unless the operator asks for them, and never into the message.
 */
import { pino } from 'pino';

export const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type Log = {
	readonly error: (fields: object, message: string) => void;
	readonly warn: (fields: object, message: string) => void;
	readonly info: (fields: object, message: string) => void;
	readonly debug: (fields: object, message: string) => void;
	/** The same log with `fields` on every line. */
	readonly child: (fields: object) => Log;
};

const wrap = (logger: pino.Logger): Log => ({
	error: (fields, message) => logger.error(fields, message),
	warn: (fields, message) => logger.warn(fields, message),
	info: (fields, message) => logger.info(fields, message),
	debug: (fields, message) => logger.debug(fields, message),
	child: (fields) => wrap(logger.child(fields)),
});

/** Writes JSON lines to standard error. */
export const createLog = (options: { level: LogLevel; personalData: boolean }): Log =>
	wrap(
		pino(
			{
				level: options.level,
				base: null,
				timestamp: pino.stdTimeFunctions.isoTime,
				redact: options.personalData ? [] : { paths: ['prompt', 'address'], remove: true },
			},
			pino.destination({ dest: 2, sync: true }),
		),
	);

export const silentLog: Log = createLog({ level: 'silent', personalData: false });
