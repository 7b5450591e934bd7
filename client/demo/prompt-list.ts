/** Prompts that are one click away: those that were used, newest first, and those that the model suggests. */
import { button, element, make } from './element.js';

const MOST_KEPT = 12;
const MOST_EXAMPLES = 6;
const KEY = 'prompts';

const load = (): string[] => {
	try {
		const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
		return Array.isArray(kept) ? kept.filter((entry) => typeof entry === 'string').slice(0, MOST_KEPT) : [];
	} catch {
		return [];
	}
};

export class PromptList {
	readonly #choose: (prompt: string) => void;
	#used = load();
	#current = '';

	constructor(choose: (prompt: string) => void) {
		this.#choose = choose;
		element('forget').addEventListener('click', () => {
			this.#used = [];
			this.#keep();
		});
		this.#show();
	}

	suggest(examples: readonly string[]): void {
		this.#fill(element('examples'), examples.slice(0, MOST_EXAMPLES));
	}

	/** It is what is generated now. */
	use(prompt: string): void {
		this.#current = prompt;
		this.#used = [prompt, ...this.#used.filter((entry) => entry !== prompt)].slice(0, MOST_KEPT);
		this.#keep();
	}

	#keep(): void {
		try {
			localStorage.setItem(KEY, JSON.stringify(this.#used));
		} catch {
			// Kept until the page is left, then.
		}
		this.#show();
	}

	#show(): void {
		this.#fill(element('history'), this.#used);
		element('history-part').hidden = this.#used.length === 0;
		for (const chip of document.querySelectorAll('#examples button')) {
			chip.setAttribute('aria-pressed', String(chip.textContent === this.#current));
		}
	}

	#fill(list: HTMLElement, prompts: readonly string[]): void {
		list.replaceChildren(...prompts.map((prompt) => {
			const chip = button(prompt, () => this.#choose(prompt));
			chip.setAttribute('aria-pressed', String(prompt === this.#current));
			return make('li', '', chip);
		}));
	}
}
