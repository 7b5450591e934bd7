/** The command: flags, configuration, signals, exit status. With `cli/`, the only code that touches the terminal. */
import { createLog } from './base/log.js';
import { parseArguments, parseNumber, usageOf, type Arguments, type FlagTable } from './cli/arguments.js';
import { bench, BENCH_FLAGS } from './cli/bench.js';
import { CONFORMANCE_FLAGS, conformance } from './cli/conformance.js';
import { DOCTOR_FLAGS, doctor } from './cli/doctor.js';
import { GENERATE_FLAGS, generate } from './cli/generate.js';
import { Interruption } from './cli/interruption.js';
import { KEYS_FLAGS, keys } from './cli/keys.js';
import { MODELS_FLAGS, models } from './cli/models.js';
import { REPLAY_FLAGS, replay } from './cli/replay.js';
import { SERVE_FLAGS, serve } from './cli/serve.js';
import { VERIFY_FLAGS, verify } from './cli/verify.js';
import { loadConfig, type Config } from './config.js';
import { DEVICES } from './engine/protocol.js';
import { TurbocastError } from './protocol/errors.js';
import { TURBOCAST_VERSION } from './version.js';

type Command = {
	readonly usage: string;
	readonly says: string;
	readonly flags: FlagTable;
	readonly run: (args: Arguments, config: Config, signal: AbortSignal) => Promise<void>;
};

const logOf = (config: Config): ReturnType<typeof createLog> =>
	createLog({ level: config.log.level, personalData: config.log.personal_data });

const COMMANDS: { readonly [name: string]: Command } = {
	serve: {
		usage: 'turbocast serve [--host H] [--port N] [--config FILE] [--device D]',
		says: 'serve the live page and the API',
		flags: SERVE_FLAGS,
		run: (_args, config, signal) => serve(config, logOf(config), signal),
	},
	generate: {
		usage: 'turbocast generate PROMPT [--seconds S] [--seed N] [--out FILE] [--at SECONDS PROMPT]...',
		says: 'write a clip to a file',
		flags: GENERATE_FLAGS,
		// A clip's own messages are its output; the log only adds what went wrong.
		run: (args, config, signal) => generate(args, config, createLog({ level: config.log.level === 'info' ? 'warn' : config.log.level, personalData: config.log.personal_data }), signal),
	},
	replay: {
		usage: 'turbocast replay FILE [--out FILE]',
		says: 'make the frames of a recorded session again, bit for bit',
		flags: REPLAY_FLAGS,
		run: (args, config, signal) => replay(args, config, createLog({ level: config.log.level === 'info' ? 'warn' : config.log.level, personalData: config.log.personal_data }), signal),
	},
	keys: {
		usage: 'turbocast keys [create [--label L] | list | revoke ID]',
		says: 'make, list and revoke server keys',
		flags: KEYS_FLAGS,
		run: (args, config) => keys(args, config),
	},
	models: {
		usage: 'turbocast models [show NAME | pull SET | import DIR|FILE --as NAME | join FOLDER... --as NAME]',
		says: 'list the installed models, show one, fetch or import published networks, or join them to a model that runs',
		flags: MODELS_FLAGS,
		run: models,
	},
	verify: {
		usage: 'turbocast verify DIR [--profile P]',
		says: 'check this build against golden tensors of the original implementations',
		flags: VERIFY_FLAGS,
		run: (args, config, signal) => verify(args, config, signal),
	},
	bench: {
		usage: 'turbocast bench gpu [--device D] [--size WxH] [--budget SECONDS]',
		says: 'measure each stage on this machine, beside what the device could do at most',
		flags: BENCH_FLAGS,
		run: bench,
	},
	doctor: {
		usage: 'turbocast doctor [URL] [--token T] [--origin O] [--picture] [--json]',
		says: 'say which hop on the way to the picture fails and what to do: of this machine, or of a server',
		flags: DOCTOR_FLAGS,
		run: doctor,
	},
	conformance: {
		usage: 'turbocast conformance URL | --client [--json]',
		says: 'check that a server, or a client, does what the protocol says',
		flags: CONFORMANCE_FLAGS,
		run: conformance,
	},
};

const HELP_FLAG: FlagTable = { help: { values: [], says: 'show this' } };

const overview = (): string =>
	`turbocast ${TURBOCAST_VERSION}: type a prompt and watch it become video\n\n${Object.values(COMMANDS).map(({ usage, says }) => `  ${usage}\n      ${says}`).join('\n')}\n\nturbocast COMMAND --help shows the options of a command.\n`;

/** Flags that set configuration keys, as a tree for `loadConfig`. */
const configFlags = (args: Arguments): { [section: string]: { [key: string]: unknown } } => {
	const device = args.one('device');
	if (device !== undefined && !(DEVICES as readonly string[]).includes(device)) {
		throw new TurbocastError('invalid_option', `--device must be one of ${DEVICES.join(', ')}, not "${device}".`);
	}
	const port = args.one('port');
	const threads = args.one('threads');
	return {
		server: { host: args.one('host'), port: port === undefined ? undefined : parseNumber('port', port, { min: 0, max: 65_535, integer: true }) },
		engine: {
			model: args.one('model'), device, profile: args.one('profile'),
			threads: threads === undefined ? undefined : parseNumber('threads', threads, { min: 1, max: 256, integer: true }),
		},
	};
};

const EXIT_MISUSE = 2;
/** 128 and the number of the signal, as shells have it. */
const EXIT_INTERRUPTED = { SIGINT: 130, SIGTERM: 143 } as const;

const statusOf = (error: unknown): number => {
	const { code } = TurbocastError.from(error);
	return code === 'invalid_option' || code === 'invalid_prompt' || code === 'invalid_config' ? EXIT_MISUSE : 1;
};

/** Runs one command and sets the exit status: 0 done, 1 failed, 2 misused, 130 or 143 interrupted. */
export const main = async (argv: readonly string[]): Promise<void> => {
	const interrupted = new AbortController();
	let signals = 0;
	const onSignal = (signal: 'SIGINT' | 'SIGTERM'): void => {
		signals += 1;
		interrupted.abort(new Interruption(signal));
		if (signals > 1) {
			process.exit(EXIT_INTERRUPTED[signal]); // Whoever asks twice does not wait for the draining.
		}
	};
	process.on('SIGINT', onSignal);
	process.on('SIGTERM', onSignal);
	try {
		const [name = '--help', ...rest] = argv;
		if (name === '--help' || name === 'help') {
			process.stdout.write(overview());
			return;
		}
		if (name === '--version') {
			process.stdout.write(`${TURBOCAST_VERSION}\n`);
			return;
		}
		const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
		if (command === undefined) {
			throw new TurbocastError('invalid_option', `"${name}" is not a command; there are ${Object.keys(COMMANDS).join(', ')}.`);
		}
		const args = parseArguments(rest, { ...command.flags, ...HELP_FLAG });
		if (args.has('help')) {
			process.stdout.write(`${command.usage}\n\n${usageOf(command.flags)}\n`);
			return;
		}
		const config = loadConfig({ file: args.one('config'), environment: process.env, flags: configFlags(args) });
		await command.run(args, config, interrupted.signal);
	} catch (error) {
		if (interrupted.signal.aborted) {
			process.exitCode = argv[0] === 'serve' ? 0 : EXIT_INTERRUPTED[interrupted.signal.reason instanceof Interruption ? interrupted.signal.reason.signal : 'SIGINT'];
		} else {
			const known = TurbocastError.from(error);
			process.stderr.write(`turbocast: ${known.message} [${known.code}]\n`);
			if (known.code === 'internal' && known.cause instanceof Error) {
				process.stderr.write(`${known.cause.stack ?? ''}\n`);
			}
			process.exitCode = statusOf(error);
		}
	} finally {
		process.off('SIGINT', onSignal);
		process.off('SIGTERM', onSignal);
	}
};
