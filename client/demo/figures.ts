/** The live figures beside the picture. */
import type { ServerMessages } from '../index.js';
import { element, make } from './element.js';
import type { NetworkFigures } from './network-figures.js';

/** Edits whose median and 95th percentile are shown. */
const KEPT_LATENCIES = 50;
const FPS_WINDOW_MS = 2000;

type Figure = 'first' | 'change' | 'p50' | 'p95' | 'fps' | 'speed' | 'lead' | 'bitrate' | 'loss';

const quantile = (sorted: readonly number[], share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;

export class Figures {
	readonly #latenciesMs: number[] = [];
	#shownAtMs: number[] = [];
	#msPerFrame: number | undefined;

	firstPicture(latencyMs: number): void {
		this.#write('first', `${Math.round(latencyMs)}`, 'ms');
	}

	changedPicture(latencyMs: number): void {
		this.#latenciesMs.push(latencyMs);
		this.#latenciesMs.splice(0, this.#latenciesMs.length - KEPT_LATENCIES);
		const sorted = [...this.#latenciesMs].sort((a, b) => a - b);
		this.#write('change', `${Math.round(latencyMs)}`, 'ms');
		this.#write('p50', `${Math.round(quantile(sorted, 0.5))}`, 'ms');
		this.#write('p95', `${Math.round(quantile(sorted, 0.95))}`, 'ms');
		element('change-count').textContent = sorted.length === 1 ? '1 change' : `${sorted.length} changes`;
	}

	frame(atMs: number): void {
		this.#shownAtMs = [...this.#shownAtMs.filter((time) => atMs - time < FPS_WINDOW_MS), atMs];
		const [oldest = atMs] = this.#shownAtMs;
		if (atMs - oldest > FPS_WINDOW_MS / 2) {
			this.#write('fps', (((this.#shownAtMs.length - 1) * 1000) / (atMs - oldest)).toFixed(1), '');
		}
	}

	/** `fps` is the model's: what real time would be. */
	chunk(message: ServerMessages['chunk.completed'], fps: number, maxLeadMs: number): void {
		const { text_ms: textMs, recache_ms: recacheMs, denoise_ms: denoiseMs, clean_ms: cleanMs, decode_ms: decodeMs } = message.timings;
		const ms = (textMs + recacheMs + denoiseMs + cleanMs + decodeMs) / Math.max(1, message.frames);
		this.#msPerFrame = this.#msPerFrame === undefined ? ms : 0.8 * this.#msPerFrame + 0.2 * ms;
		this.#write('speed', (1000 / fps / this.#msPerFrame).toFixed(1), '×');
		this.#write('lead', `${Math.round(message.lead_ms)}`, 'ms');
		element('lead-gauge').style.setProperty('--share', String(Math.min(1, Math.max(0, message.lead_ms / maxLeadMs))));
	}

	network({ bitrateBps, loss }: NetworkFigures): void {
		this.#write('bitrate', (bitrateBps / 1000).toFixed(0), 'kbit/s');
		this.#write('loss', (loss * 100).toFixed(1), '%');
	}

	/** The video stands still now. */
	pause(): void {
		this.#shownAtMs = [];
		this.#write('fps', '–', '');
	}

	#write(figure: Figure, value: string, unit: string): void {
		element(`figure-${figure}`).replaceChildren(value, ...(unit === '' ? [] : [make('small', '', ` ${unit}`)]));
	}
}
