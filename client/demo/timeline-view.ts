/** Where the time goes: of the last change as a bar, of the last chunks as columns. */
import { CHANGE_STAGES, type ChangeStage, type ChangeTimeline, type FrameTimeline, type ModelInfo, type ServerMessages } from '../index.js';
import { element, make } from './element.js';

const NAMES: { readonly [stage in ChangeStage]: string } = {
	uplink: 'to the server', wait: 'wait for a chunk', denoise: 'denoise', decode: 'decode', pace: 'wait for its turn', encode: 'compress',
	network: 'network', buffer: 'jitter buffer', unpack: 'decompress', display: 'display',
};
const KEPT_CHUNKS = 24;
/** The top of the columns, in times that a chunk plays. */
const HIGHEST = 1.5;
/** Frames whose times are averaged. */
const KEPT_FRAMES = 32;

const ms = (value: number): string => (value < 9.95 ? value.toFixed(1) : String(Math.round(value)));

export class TimelineView {
	readonly #frames: FrameTimeline[] = [];

	showChange({ stagesMs, totalMs, uncertaintyMs }: ChangeTimeline): void {
		element('change-part').hidden = false;
		element('change-bar').replaceChildren(...CHANGE_STAGES.filter((stage) => stagesMs[stage] > 0).map((stage) => {
			const part = make('i', `stage-${stage}`);
			part.style.setProperty('--share', String(stagesMs[stage] / totalMs));
			part.title = `${NAMES[stage]}: ${ms(stagesMs[stage])} ms`;
			return part;
		}));
		element('change-legend').replaceChildren(...CHANGE_STAGES.map((stage) => make('div', '', make('dt', `stage-${stage}`, NAMES[stage]), make('dd', '', ms(stagesMs[stage])))));
		element('change-total').textContent = `${Math.round(totalMs)} ms`;
		element('change-clock').textContent = `two clocks, compared to ± ${ms(uncertaintyMs)} ms`;
	}

	/** A column as high as the chunk took; the line is the time that it plays. */
	showChunk({ chunk_index: index, timings, frames, deadline_missed: isLate }: ServerMessages['chunk.completed'], { fps }: ModelInfo): void {
		const budgetMs = (frames * 1000) / fps;
		const parts = [
			['denoise', timings.text_ms + timings.recache_ms + timings.denoise_ms], ['clean', timings.clean_ms], ['decode', timings.decode_ms],
			...(['encode', 'network', 'display'] as const).map((stage) => [stage, this.#average(stage)] as const),
		] as const;
		const column = make('li', isLate ? 'late' : '', ...parts.map(([stage, value]) => {
			const part = make('i', `stage-${stage}`);
			part.style.setProperty('--share', String(Math.min(1, value / budgetMs / HIGHEST)));
			return part;
		}));
		column.title = `chunk ${index + 1} (${Math.round(budgetMs)} ms of video): ${parts.map(([stage, value]) => `${stage} ${ms(value)}`).join(', ')} ms`;
		const list = element('chunks-shown');
		list.append(column);
		while (list.children.length > KEPT_CHUNKS) {
			list.firstElementChild?.remove();
		}
		element('chunk-now').textContent = `${parts.slice(0, 3).map(([stage, value]) => `${stage} ${ms(value)}`).join(' · ')} ms of ${Math.round(budgetMs)}`;
	}

	frame(timeline: FrameTimeline): void {
		this.#frames.push(timeline);
		this.#frames.splice(0, this.#frames.length - KEPT_FRAMES);
	}

	#average(stage: 'encode' | 'network' | 'display'): number {
		const value = ({ stagesMs }: FrameTimeline): number => (stage === 'network' ? stagesMs.network + stagesMs.buffer : stage === 'display' ? stagesMs.unpack + stagesMs.display : stagesMs.encode);
		return this.#frames.length === 0 ? 0 : this.#frames.reduce((sum, frame) => sum + value(frame), 0) / this.#frames.length;
	}
}
