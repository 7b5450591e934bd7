/** The live figures below the picture. */
import type { ServerMessages } from '../index.js';

/** Edits whose median and 95th percentile are shown. */
const KEPT_LATENCIES = 50;
const FPS_WINDOW_MS = 2000;

const quantile = (sorted: readonly number[], share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;

export class Figures {
	readonly #first: HTMLElement;
	readonly #change: HTMLElement;
	readonly #fps: HTMLElement;
	readonly #speed: HTMLElement;
	readonly #latenciesMs: number[] = [];
	#shownAtMs: number[] = [];
	#msPerFrame: number | undefined;

	constructor(element: (id: string) => HTMLElement) {
		this.#first = element('figure-first');
		this.#change = element('figure-change');
		this.#fps = element('figure-fps');
		this.#speed = element('figure-speed');
	}

	firstPicture(latencyMs: number): void {
		this.#write(this.#first, `${Math.round(latencyMs)}`, 'ms');
	}

	changedPicture(latencyMs: number): void {
		this.#latenciesMs.push(latencyMs);
		this.#latenciesMs.splice(0, this.#latenciesMs.length - KEPT_LATENCIES);
		const sorted = [...this.#latenciesMs].sort((a, b) => a - b);
		this.#write(this.#change, `${Math.round(latencyMs)}`, 'ms');
		this.#change.title = `of ${sorted.length}: median ${Math.round(quantile(sorted, 0.5))} ms, 95th percentile ${Math.round(quantile(sorted, 0.95))} ms`;
	}

	frame(atMs: number): void {
		this.#shownAtMs = [...this.#shownAtMs.filter((time) => atMs - time < FPS_WINDOW_MS), atMs];
		const [oldest = atMs] = this.#shownAtMs;
		if (atMs - oldest > FPS_WINDOW_MS / 2) {
			this.#write(this.#fps, (((this.#shownAtMs.length - 1) * 1000) / (atMs - oldest)).toFixed(1), '');
		}
	}

	/** `fps` is the model's: what real time would be. */
	chunk(message: ServerMessages['chunk.completed'], fps: number): void {
		const { text_ms: textMs, denoise_ms: denoiseMs, clean_ms: cleanMs, decode_ms: decodeMs } = message.timings;
		const ms = (textMs + denoiseMs + cleanMs + decodeMs) / Math.max(1, message.frames);
		this.#msPerFrame = this.#msPerFrame === undefined ? ms : 0.8 * this.#msPerFrame + 0.2 * ms;
		this.#write(this.#speed, (1000 / fps / this.#msPerFrame).toFixed(1), '× real time');
	}

	/** The video stands still now. */
	pause(): void {
		this.#shownAtMs = [];
		this.#write(this.#fps, '–', '');
	}

	#write(target: HTMLElement, value: string, unit: string): void {
		const small = document.createElement('small');
		small.textContent = unit === '' ? '' : ` ${unit}`;
		target.replaceChildren(value, small);
	}
}
