/** How the video is made: transition, steps, seed. */
import { STEP_COUNTS, type ModelInfo, type PromptOptions, type StepCount, type TransitionMode } from '../index.js';
import { element, make } from './element.js';

const TRANSITIONS: { readonly [mode in TransitionMode]: readonly [string, string] } = {
	cut: ['Cut', 'A new scene at once: the past is forgotten.'],
	recache: ['Flow', 'The scene turns into the new one: the past is seen with the new words.'],
	blend: ['Blend', 'Goes over step by step, during several chunks.'],
};
const MOST_SEED = 0xffff_ffff;

/** A row of choices of which one is taken. */
const choices = <T extends string | number>(container: HTMLElement, name: string, options: readonly { readonly value: T; readonly text: string; readonly title: string }[], initial: T, onChange: (value: T) => void): void => {
	container.replaceChildren(...options.map(({ value, text, title }) => {
		const input = document.createElement('input');
		input.type = 'radio';
		input.name = name;
		input.value = String(value);
		input.checked = value === initial;
		input.addEventListener('change', () => onChange(value));
		const label = make('label', '', input, make('span', '', text));
		label.title = title;
		return label;
	}));
};

export class Settings {
	#transition: TransitionMode | undefined;
	#steps: StepCount | undefined;

	constructor(model: ModelInfo, onSteps: (steps: StepCount) => void) {
		const modes = model.transitions;
		element('transition-part').hidden = modes.length === 0;
		this.#transition = modes.includes('recache') ? 'recache' : modes[0];
		choices(element('transition'), 'transition', modes.map((mode) => ({ value: mode, text: TRANSITIONS[mode][0], title: TRANSITIONS[mode][1] })), this.#transition ?? 'recache', (mode) => {
			this.#transition = mode;
			this.#showChunks();
		});
		this.#showChunks();
		const steps = STEP_COUNTS.filter((count) => model.steps.includes(count));
		choices(element('steps'), 'steps', steps.map((count) => ({ value: count, text: String(count), title: `${count} denoising ${count === 1 ? 'step' : 'steps'} a chunk: fewer are faster, more are sharper` })), model.default_steps as StepCount, (count) => {
			this.#steps = count;
			onSteps(count);
		});
		element('dice').onclick = () => {
			element<HTMLInputElement>('seed').value = String(Math.floor(Math.random() * (MOST_SEED + 1)));
		};
	}

	get steps(): StepCount | undefined {
		return this.#steps;
	}

	/** `undefined`: the server draws one. */
	get seed(): number | undefined {
		const { value } = element<HTMLInputElement>('seed');
		const seed = Number(value);
		return value.trim() === '' || !Number.isInteger(seed) || seed < 0 || seed > MOST_SEED ? undefined : seed;
	}

	/** For a new prompt. */
	get promptOptions(): PromptOptions {
		if (this.#transition === undefined) {
			return {};
		}
		return this.#transition === 'blend' ? { transition: 'blend', chunks: Number(element<HTMLInputElement>('chunks').value) } : { transition: this.#transition };
	}

	/** What the server uses, as it runs. */
	show(seed: number, steps: number): void {
		element<HTMLInputElement>('seed').placeholder = String(seed);
		for (const input of document.querySelectorAll<HTMLInputElement>('input[name="steps"]')) {
			input.checked = input.value === String(steps);
		}
	}

	#showChunks(): void {
		element('chunks-part').hidden = this.#transition !== 'blend';
	}
}
