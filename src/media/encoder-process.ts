/**
 * The encoder process: started by `encoder-host.ts`, ended when the channel to it closes. Any number of encoders live here,
 * each fed in order. Arguments: the implementation wanted, and the path of ffmpeg (empty for the package's).
 */
import { systemClock } from '../base/time.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import type { EncoderChoice, EncoderEvent, EncoderRequest } from './encoder-protocol.js';
import { HARDWARE_ENCODERS, SOFTWARE_ENCODERS, type EncoderImplementation, type EncoderLibrary, type FrameEncoder, type SoftwareEncoder } from './encoders/frame-encoder.js';
import type { EncoderOptions } from './encoder.js';
import type { EncoderReport } from './encoder-self-test.js';
import { halfSide, halveI420 } from './halve.js';
import { loadEncoder, withFallback } from './encoders/load.js';
import { tryOut } from './encoders/try-out.js';

type Chosen = { readonly library: EncoderLibrary; readonly implementation: EncoderImplementation; readonly reports: readonly EncoderReport[] };

/** The first of these that works. Throws the last failure. */
const chooseSoftware = async (candidates: readonly SoftwareEncoder[], ffmpeg: string): Promise<Chosen> => {
	const reports: EncoderReport[] = [];
	let failure: unknown;
	for (const implementation of candidates) {
		try {
			const library = await loadEncoder(implementation, ffmpeg);
			return { library, implementation, reports: [...reports, { implementation, kind: 'works', ...(await tryOut(library)) }] };
		} catch (error) {
			failure = error;
			reports.push({ implementation, kind: 'refused', why: TurbocastError.from(error, 'encoder_failed').message });
		}
	}
	throw failure;
};

const choose = async (choice: EncoderChoice, ffmpeg: string): Promise<Chosen> => {
	const hardware = HARDWARE_ENCODERS.find((implementation) => implementation === choice);
	if (hardware === undefined) {
		return chooseSoftware(SOFTWARE_ENCODERS.filter((implementation) => choice === 'auto' || choice === implementation), ffmpeg);
	}
	// It has passed its test in a process of its own.
	const { library, reports } = await chooseSoftware(SOFTWARE_ENCODERS, ffmpeg);
	return { library: withFallback(await loadEncoder(hardware, ffmpeg), library), implementation: hardware, reports };
};

const post = (event: EncoderEvent): void => {
	process.send?.(event);
};

/** One encoder and the chain that keeps its frames in order. */
type Entry = { encoder: Promise<FrameEncoder>; tail: Promise<void> };
const entries = new Map<number, Entry>();

const openHalving = async (library: EncoderLibrary, options: EncoderOptions): Promise<FrameEncoder> => {
	const { width, height } = options;
	const encoder = await library.open({ ...options, width: halfSide(width), height: halfSide(height) });
	return { encode: (data, wanted) => encoder.encode(halveI420(data, width, height), wanted), close: encoder.close };
};

const open = (library: EncoderLibrary, request: EncoderRequest & { type: 'open' }): void => {
	const { options } = request;
	const encoder = options.halves === true ? openHalving(library, options) : library.open(options);
	const tail = encoder.then(
		() => post({ type: 'opened', encoder: request.encoder }),
		(error: unknown) => post({ type: 'failed', encoder: request.encoder, message: TurbocastError.from(error, 'encoder_failed').message }),
	);
	entries.set(request.encoder, { encoder, tail });
};

const encode = async (encoder: Promise<FrameEncoder>, request: EncoderRequest & { type: 'encode' }): Promise<void> => {
	try {
		const startedMs = systemClock.nowMs();
		const picture = await (await encoder).encode(request.data, request);
		post({
			type: 'encoded', encoder: request.encoder, sequence: request.sequence,
			data: picture.data, isKeyframe: picture.isKeyframe, encodeMs: systemClock.nowMs() - startedMs,
		});
	} catch (error) {
		post({ type: 'failed', encoder: request.encoder, sequence: request.sequence, message: TurbocastError.from(error, 'encoder_failed').message });
	}
};

const close = async (encoder: Promise<FrameEncoder>, id: number): Promise<void> => {
	await encoder.then((open) => open.close(), () => undefined);
	post({ type: 'closed', encoder: id });
};

const handle = (library: EncoderLibrary, request: EncoderRequest): void => {
	if (request.type === 'open') {
		open(library, request);
		return;
	}
	const entry = entries.get(request.encoder);
	if (entry === undefined) {
		return;
	}
	switch (request.type) {
		case 'encode':
			entry.tail = entry.tail.then(() => encode(entry.encoder, request));
			break;
		case 'close':
			entries.delete(request.encoder);
			entry.tail = entry.tail.then(() => close(entry.encoder, request.encoder));
			break;
		default:
			assertNever(request);
	}
};

// The host alone decides when this process ends: a terminal sends Ctrl-C to the whole group.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(0));
if (!process.connected) {
	process.exit(0); // Our parent was gone before all this was loaded.
}
try {
	const { library, implementation, reports } = await choose(process.argv[2] as EncoderChoice, process.argv[3] ?? '');
	process.on('message', (request) => handle(library, request as EncoderRequest));
	post({ type: 'ready', implementation, reports });
} catch (error) {
	post({ type: 'unusable', message: TurbocastError.from(error, 'encoder_failed').message });
}
