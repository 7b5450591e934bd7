/** Whether steps of several streams are faster as one forward than one after the other: measured, on what computes them. */
import type { Networks, PromptTensors, StepInputs, StepsTogether } from './networks.js';

/** Of the time that a stream's step takes alone, what it may take in company: less would not be worth that everybody waits for all. */
const WORTH = 0.9;
/** Forwards of each kind; the first is not counted, and the fastest of the others is, which other programs disturb least. */
const ROUNDS = 4;

/** A step with an empty text over a full window; what the numbers are takes no time. */
export const usualStep = ({ spec, headDim, tokensPerLatent, latentWidth, latentHeight }: Networks, prompt: PromptTensors): StepInputs => {
	const { latents_per_chunk: latents, window_latents: window } = spec.stream;
	const pastTokens = (window - latents) * tokensPerLatent;
	const past = Array.from({ length: spec.dit.num_layers }, () => new Float32Array(spec.dit.num_heads * pastTokens * headDim));
	return {
		latent: new Float32Array(spec.dit.in_dim * latents * latentWidth * latentHeight), timesteps: new Array<number>(latents).fill(500),
		prompt, firstPosition: 0, pastK: past, pastV: past, pastTokens, wantKeysAndValues: false,
	};
};

/** Of the sizes that there are forwards for, those that pay. */
export const sizesThatPay = async (networks: Networks, together: StepsTogether, nowMs: () => number): Promise<number[]> => {
	const step = usualStep(networks, await networks.encodePrompt(''));
	const fastest = async (run: () => Promise<unknown>): Promise<number> => {
		let bestMs = Infinity;
		for (let round = 0; round < ROUNDS; round++) {
			const startMs = nowMs();
			await run();
			bestMs = round === 0 ? Infinity : Math.min(bestMs, nowMs() - startMs);
		}
		return bestMs;
	};
	const aloneMs = await fastest(() => networks.step(step));
	const paying: number[] = [];
	for (const size of together.sizes) {
		const togetherMs = await fastest(() => together.steps(new Array<StepInputs>(size).fill(step)));
		if (togetherMs / size <= WORTH * aloneMs) {
			paying.push(size);
		}
	}
	return paying;
};
