/** Which encoder is used: one in hardware only where it passes its self-test at the size of the stream and is faster than the one in software. */
import { TurbocastError } from '../protocol/errors.js';
import type { EncoderChoice } from './encoder-protocol.js';
import { testEncoder, type EncoderReport, type SelfTestRequest } from './encoder-self-test.js';
import { HARDWARE_ENCODERS, SOFTWARE_ENCODERS, type EncoderImplementation, type HardwareEncoder } from './encoders/frame-encoder.js';
import { whyNoHardware } from './encoders/load.js';

export type ChoiceRequest = Omit<SelfTestRequest, 'implementation'> & {
	readonly choice: EncoderChoice;
	/** For tests. */
	readonly test?: typeof testEncoder;
	readonly whyNot?: (implementation: HardwareEncoder) => string | undefined;
};

/** `process`: what the encoder process is to take; `auto` leaves it the choice between those in software. */
export type EncoderDecision = { readonly process: EncoderChoice; readonly reports: readonly EncoderReport[] };

const isHardware = (choice: EncoderChoice): choice is HardwareEncoder => (HARDWARE_ENCODERS as readonly EncoderChoice[]).includes(choice);

/** One encoder and what was found, as a clause. */
export const clauseOf = (report: EncoderReport): string => (report.kind === 'works'
	? `${report.implementation} works (${report.frameMs.toFixed(1)} ms a frame, ${report.psnrDb.toFixed(1)} dB)`
	: `${report.implementation} is not used: ${report.why.replace(/\.$/u, '')}`);

const firstSoftware = async (test: typeof testEncoder, request: Omit<SelfTestRequest, 'implementation'>): Promise<EncoderReport | undefined> => {
	for (const implementation of SOFTWARE_ENCODERS) {
		const report = await test({ ...request, implementation });
		if (report.kind === 'works') {
			return report;
		}
	}
	return undefined;
};

/** Throws `encoder_failed` when an encoder in hardware was asked for and does not work. */
export const chooseEncoder = async ({ choice, test = testEncoder, whyNot = whyNoHardware, ...request }: ChoiceRequest): Promise<EncoderDecision> => {
	if (isHardware(choice)) {
		const report = await test({ ...request, implementation: choice });
		if (report.kind === 'refused') {
			throw new TurbocastError('encoder_failed', `media.encoder asks for ${choice}, which does not work here: ${report.why.replace(/\.$/u, '')}. Set media.encoder to auto, which takes one that works.`);
		}
		return { process: choice, reports: [report] };
	}
	if (choice !== 'auto') {
		return { process: choice, reports: [] };
	}
	const reports: EncoderReport[] = [];
	for (const implementation of HARDWARE_ENCODERS) {
		const why = whyNot(implementation);
		reports.push(why === undefined ? await test({ ...request, implementation }) : { implementation, kind: 'refused', why });
	}
	const works = reports.filter((report) => report.kind === 'works').sort((a, b) => a.frameMs - b.frameMs);
	const [fastest] = works;
	if (fastest === undefined) {
		return { process: 'auto', reports };
	}
	const software = await firstSoftware(test, request);
	if (software?.kind === 'works' && software.frameMs <= fastest.frameMs) {
		const slower = ({ implementation, frameMs }: { readonly implementation: EncoderImplementation; readonly frameMs: number }): EncoderReport =>
			({ implementation, kind: 'refused', why: `it takes ${frameMs.toFixed(1)} ms a frame, ${software.implementation} ${software.frameMs.toFixed(1)}` });
		return { process: 'auto', reports: reports.map((report) => (report.kind === 'works' ? slower(report) : report)) };
	}
	return { process: fastest.implementation, reports: [...reports, ...(software === undefined ? [] : [software])] };
};
