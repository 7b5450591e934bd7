/**
 * Configuration: one schema, from which come the parser, the defaults and (by a test) the comments of `config/default.yaml`.
 * Later sources win: defaults, the file, environment variables, command-line flags. All mistakes are reported at once.
 */
import { readFileSync } from 'node:fs';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import { LOG_LEVELS } from './base/log.js';
import { BATCH_CHOICES, DEFAULT_MAX_STREAMS, DEVICES, ENGINE_PROFILES, RESIDENCIES, STANDBY_MODES, USE_MODES } from './engine/protocol.js';
import { ENCODER_CHOICES } from './media/encoder-protocol.js';
import { TurbocastError } from './protocol/errors.js';
import { SERVER_KEY_FORM } from './server/keys.js';
import { boolean, integer, list, number, object, oneOf, optional, string, withDefault, type Infer, type Schema } from './protocol/schema.js';


const text = string({ min: 1, max: 1024 });
const HOUR_MS = 3_600_000;

export const CONFIG_SCHEMA = object({
	server: object({
		host: withDefault(text, '127.0.0.1'),
		port: withDefault(integer({ min: 0, max: 65_535 }), 8080),
		allowed_origins: withDefault(list(text, { max: 256 }), []),
		trusted_proxies: withDefault(list(text, { max: 64 }), []),
		drain_ms: withDefault(integer({ min: 0, max: HOUR_MS }), 25_000),
	}, 'refuse'),
	auth: object({
		keys: withDefault(list(string({ max: 256, pattern: SERVER_KEY_FORM, says: 'must be `sk_` and 32 to 128 letters, digits, dashes or underscores' }), { max: 64 }), []),
		keys_file: withDefault(string({ max: 4096 }), ''),
	}, 'refuse'),
	engine: object({
		model: withDefault(text, 'toybox'),
		models_dir: withDefault(string({ max: 4096 }), ''),
		device: withDefault(oneOf(DEVICES), 'auto'),
		profile: withDefault(oneOf(['auto', ...ENGINE_PROFILES]), 'auto'),
		kernels: withDefault(oneOf(USE_MODES), 'auto'),
		cuda_graphs: withDefault(oneOf(USE_MODES), 'off'),
		threads: withDefault(integer({ min: 1, max: 256 }), 1),
		batch: withDefault(oneOf(BATCH_CHOICES), 'auto'),
		max_streams: withDefault(integer({ min: 2, max: 4096 }), DEFAULT_MAX_STREAMS),
		memory_mb: withDefault(integer({ min: 0, max: 10_000_000 }), 0),
		residency: withDefault(oneOf(RESIDENCIES), 'auto'),
		standby: withDefault(oneOf(STANDBY_MODES), 'auto'),
		embedding_cache_dir: withDefault(string({ max: 4096 }), ''),
		embedding_cache_bytes: withDefault(integer({ min: 0, max: 1024 ** 4 }), 512 * 1024 ** 2),
	}, 'refuse'),
	generation: object({
		steps: withDefault(integer({ min: 0, max: 64 }), 0),
		max_lead_ms: withDefault(integer({ min: 100, max: 60_000 }), 1000),
	}, 'refuse'),
	media: object({
		encoder: withDefault(oneOf(ENCODER_CHOICES), 'auto'),
		ffmpeg_path: withDefault(string({ max: 4096 }), ''),
		bitrate_bps: withDefault(integer({ min: 50_000, max: 50_000_000 }), 1_200_000),
		bitrate_floor_bps: withDefault(integer({ min: 50_000, max: 50_000_000 }), 300_000),
		udp_port_min: withDefault(integer({ min: 0, max: 65_535 }), 0),
		udp_port_max: withDefault(integer({ min: 0, max: 65_535 }), 0),
		udp_segmentation: withDefault(boolean(), true),
		announce_addresses: withDefault(list(text, { max: 16 }), []),
		ice_servers: withDefault(list(object({
			urls: list(text, { min: 1, max: 16 }), username: optional(string({ max: 512 })), credential: optional(string({ max: 512 })),
		}, 'refuse'), { max: 16 }), []),
		turn_urls: withDefault(list(string({ max: 512, pattern: /^turns?:[^\s<>"]+$/u, says: 'must be an address such as turn:turn.example:3478?transport=udp' }), { max: 15 }), []),
		turn_secret: withDefault(string({ max: 512 }), ''),
		turn_credential_seconds: withDefault(integer({ min: 60, max: 7 * 86_400 }), 7200),
	}, 'refuse'),
	limits: object({
		max_sessions: withDefault(integer({ min: 1, max: 1000 }), 2),
		max_waiting: withDefault(integer({ min: 0, max: 1000 }), 16),
		max_sessions_per_key: withDefault(integer({ min: 0, max: 1000 }), 0),
		max_sessions_per_address: withDefault(integer({ min: 0, max: 1000 }), 0),
		max_engine_share: withDefault(number({ min: 0.1, max: 1 }), 0.85),
		max_viewers: withDefault(integer({ min: 0, max: 1000 }), 64),
		max_connections: withDefault(integer({ min: 1, max: 100_000 }), 512),
		max_connections_per_address: withDefault(integer({ min: 0, max: 100_000 }), 0),
		session_max_ms: withDefault(integer({ min: 1000, max: 24 * HOUR_MS }), HOUR_MS),
		idle_timeout_ms: withDefault(integer({ min: 1000, max: HOUR_MS }), 120_000),
		start_timeout_ms: withDefault(integer({ min: 1000, max: 24 * HOUR_MS }), HOUR_MS),
		resume_grace_ms: withDefault(integer({ min: 0, max: HOUR_MS }), 15_000),
		whep_offers_per_minute: withDefault(integer({ min: 1, max: 100_000 }), 60),
		messages_per_second: withDefault(integer({ min: 1, max: 10_000 }), 200),
		secrets_per_minute: withDefault(integer({ min: 1, max: 100_000 }), 50),
		bad_messages_per_minute: withDefault(integer({ min: 1, max: 10_000 }), 60),
	}, 'refuse'),
	recording: object({
		minutes: withDefault(number({ min: 0, max: 60 }), 2),
		max_bytes: withDefault(integer({ min: 1024 ** 2, max: 1024 ** 3 }), 32 * 1024 ** 2),
	}, 'refuse'),
	publish: object({
		allowed_origins: withDefault(list(string({ max: 512, pattern: /^https?:\/\/[^\s/?#@]+$/u, says: 'must be scheme://host or scheme://host:port, such as https://whip.example' }), { max: 64 }), []),
		max_per_session: withDefault(integer({ min: 1, max: 16 }), 2),
	}, 'refuse'),
	log: object({
		level: withDefault(oneOf(LOG_LEVELS), 'info'),
		personal_data: withDefault(boolean(), false),
		sessions_folder: withDefault(string({ max: 4096 }), ''),
	}, 'refuse'),
}, 'refuse');

export type Config = Infer<typeof CONFIG_SCHEMA>;

type Tree = { [key: string]: unknown };

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

const fieldsOf = (schema: Schema<unknown>): { readonly [key: string]: Schema<unknown> } | undefined =>
	(schema as { shape?: { readonly [key: string]: Schema<unknown> } }).shape;

/** Parses `value`, collecting every mistake instead of stopping at the first. */
const collect = (schema: Schema<unknown>, value: unknown, path: string, mistakes: string[]): unknown => {
	const fields = fieldsOf(schema);
	if (fields === undefined || (value !== undefined && !isTree(value))) {
		try {
			return schema.parse(value, path);
		} catch (error) {
			mistakes.push(TurbocastError.from(error).message);
			return undefined;
		}
	}
	const tree = value ?? {};
	for (const key of Object.keys(tree)) {
		if (!Object.hasOwn(fields, key)) {
			mistakes.push(`\`${path === '' ? key : `${path}.${key}`}\` is not a known key; known here: ${Object.keys(fields).join(', ')}.`);
		}
	}
	return Object.fromEntries(
		Object.entries(fields).map(([key, field]) => [key, collect(field, tree[key], path === '' ? key : `${path}.${key}`, mistakes)]),
	);
};

/** Checks a whole configuration. Throws one `invalid_config` that lists every mistake with its key. `from` names the source. */
export const parseConfig = (value: unknown, from: string): Config => {
	const mistakes: string[] = [];
	const config = collect(CONFIG_SCHEMA, value ?? {}, '', mistakes) as Config;
	if (mistakes.length === 0 && (config.media.udp_port_min === 0) !== (config.media.udp_port_max === 0)) {
		mistakes.push('`media.udp_port_min` and `media.udp_port_max` must be set together.');
	}
	if (mistakes.length === 0 && config.media.udp_port_max !== 0 && config.media.udp_port_min >= config.media.udp_port_max) {
		mistakes.push('`media.udp_port_min` must be below `media.udp_port_max`.');
	}
	if (mistakes.length === 0 && config.engine.max_streams < 2 * config.limits.max_sessions) {
		mistakes.push(`\`engine.max_streams\` must be at least twice \`limits.max_sessions\` (${2 * config.limits.max_sessions}): a stream that ends is closed a little after its place was given to another.`);
	}
	if (mistakes.length === 0 && (config.media.turn_urls.length === 0) !== (config.media.turn_secret === '')) {
		mistakes.push('`media.turn_urls` and `media.turn_secret` must be set together.');
	}
	if (mistakes.length > 0) {
		throw new TurbocastError('invalid_config', `${from} has ${mistakes.length === 1 ? 'a mistake' : `${mistakes.length} mistakes`}: ${mistakes.join(' ')}`);
	}
	return config;
};

const readFile = (path: string): unknown => {
	let source: string;
	try {
		source = readFileSync(path, 'utf8');
	} catch (error) {
		throw new TurbocastError('invalid_config', `The configuration file ${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown reason'}); check the path given to --config.`, { cause: error });
	}
	try {
		return parseYaml(source) ?? {};
	} catch (error) {
		const where = error instanceof YAMLParseError ? error.message : String(error);
		throw new TurbocastError('invalid_config', `The configuration file ${path} is not valid YAML: ${where}`, { cause: error });
	}
};

const ENVIRONMENT_PREFIX = 'TURBOCAST_';

/** `TURBOCAST_SERVER__PORT=9000` sets `server.port`: two underscores between levels; the value is read as YAML. */
const fromEnvironment = (environment: { readonly [name: string]: string | undefined }): Tree => {
	const tree: Tree = {};
	for (const [name, value] of Object.entries(environment)) {
		if (!name.startsWith(ENVIRONMENT_PREFIX) || value === undefined || !name.includes('__')) {
			continue;
		}
		const [section = '', key = ''] = name.slice(ENVIRONMENT_PREFIX.length).toLowerCase().split('__');
		tree[section] = { ...(isTree(tree[section]) ? tree[section] : {}), [key]: parseYaml(value) as unknown };
	}
	return tree;
};

const merge = (below: unknown, above: unknown): unknown => {
	if (!isTree(below) || !isTree(above)) {
		return above === undefined ? below : above;
	}
	const keys = new Set([...Object.keys(below), ...Object.keys(above)]);
	return Object.fromEntries([...keys].map((key) => [key, merge(below[key], above[key])]));
};

/** Reads the file (when given), then the environment, then `flags` (undefined entries are left out). Throws `invalid_config`. */
export const loadConfig = (options: {
	readonly file?: string | undefined;
	readonly environment: { readonly [name: string]: string | undefined };
	readonly flags: Tree;
}): Config => {
	const file = options.file === undefined ? {} : readFile(options.file);
	if (!isTree(file)) {
		throw new TurbocastError('invalid_config', `The configuration file ${options.file ?? ''} must hold sections with keys, as config/default.yaml does.`);
	}
	const merged = merge(merge(file, fromEnvironment(options.environment)), options.flags);
	return parseConfig(merged, options.file ?? 'The configuration');
};
