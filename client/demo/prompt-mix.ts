/** Several texts at once, each with its weight: the prompt of the composer, and those that are mixed into it. */
import type { Prompt } from '../index.js';
import { button, element, make } from './element.js';

/** More sliders than that nobody keeps in view; the protocol has eight. */
const MOST_TEXTS = 4;
/** A pause in typing after which a text counts; a slider counts while it is moved, a few times a second. */
const TYPING_PAUSE_MS = 400;
const SLIDING_PAUSE_MS = 150;
const MOST_WEIGHT = 100;
const FIRST_WEIGHT = 50;

type Row = { readonly item: HTMLLIElement; readonly text: () => string; readonly weight: HTMLInputElement; readonly share: HTMLOutputElement };

export class PromptMix {
	readonly #onChange: () => void;
	readonly #toggle = element<HTMLButtonElement>('mix');
	readonly #add = element<HTMLButtonElement>('mix-add');
	readonly #main: Row;
	#mainText = '';
	#others: Row[] = [];
	#timer: ReturnType<typeof setTimeout> | undefined;

	constructor(onChange: () => void) {
		this.#onChange = onChange;
		const name = make('span', 'mix-main', '');
		this.#main = this.#row(name, () => this.#mainText, 'this prompt');
		this.#main.item.append(make('span', ''));
		element('mix-rows').append(this.#main.item);
		this.#toggle.addEventListener('click', () => this.#setOpen(this.#others.length === 0));
		this.#add.addEventListener('click', () => this.#addRow('', FIRST_WEIGHT).focus());
	}

	/** The prompt of the composer, with what is mixed into it. */
	with(text: string): Prompt {
		this.#mainText = text;
		const name = this.#main.item.firstElementChild;
		if (name !== null) {
			name.textContent = text === '' ? 'the prompt above' : text;
		}
		const rows = this.#rows.filter((row) => row.text() !== '' && row.weight.valueAsNumber > 0);
		this.#showShares(rows);
		const [first] = rows;
		if (first === undefined) {
			return text;
		}
		return rows.length === 1 ? first.text() : rows.map((row) => ({ text: row.text(), weight: row.weight.valueAsNumber }));
	}

	/** What a session that runs already is made from; the first text is the composer's. */
	show(prompts: readonly { readonly text: string; readonly weight: number }[]): void {
		this.#others.splice(0).forEach(({ item }) => item.remove());
		this.#main.weight.valueAsNumber = Math.round((prompts.length > 1 ? (prompts[0]?.weight ?? 0) : 0.5) * MOST_WEIGHT);
		for (const { text, weight } of prompts.slice(1, MOST_TEXTS)) {
			this.#addRow(text, Math.round(weight * MOST_WEIGHT));
		}
		this.#setOpen(prompts.length > 1);
	}

	get #rows(): readonly Row[] {
		return [this.#main, ...this.#others];
	}

	#setOpen(isOpen: boolean): void {
		element('mix-part').hidden = !isOpen;
		this.#toggle.setAttribute('aria-expanded', String(isOpen));
		if (!isOpen) {
			this.#others.splice(0).forEach(({ item }) => item.remove());
			this.#changed(0);
		} else if (this.#others.length === 0) {
			this.#addRow('', FIRST_WEIGHT).focus();
		}
	}

	#addRow(text: string, weight: number): HTMLInputElement {
		const field = make('input', '');
		field.type = 'text';
		field.maxLength = 2000;
		field.value = text;
		field.placeholder = 'and a dog in the snow';
		field.setAttribute('aria-label', 'Text that is mixed in');
		field.addEventListener('input', () => this.#changed(TYPING_PAUSE_MS));
		field.addEventListener('change', () => this.#changed(0));
		const row = this.#row(field, () => field.value.trim(), 'this text');
		row.weight.valueAsNumber = weight;
		const remove = button('×', () => {
			row.item.remove();
			this.#others = this.#others.filter((each) => each !== row);
			this.#add.hidden = false;
			if (this.#others.length === 0) {
				this.#setOpen(false);
				this.#toggle.focus();
			} else {
				this.#changed(0);
				this.#add.focus();
			}
		});
		remove.setAttribute('aria-label', 'Remove this text');
		row.item.append(remove);
		this.#others.push(row);
		element('mix-rows').append(row.item);
		this.#add.hidden = this.#others.length >= MOST_TEXTS - 1;
		return field;
	}

	#row(name: HTMLElement, text: () => string, of: string): Row {
		const weight = make('input', '');
		weight.type = 'range';
		weight.min = '0';
		weight.max = String(MOST_WEIGHT);
		weight.step = '5';
		weight.valueAsNumber = FIRST_WEIGHT;
		weight.setAttribute('aria-label', `Weight of ${of}`);
		weight.addEventListener('input', () => this.#changed(SLIDING_PAUSE_MS));
		const share = make('output', '');
		return { item: make('li', '', name, weight, share), text, weight, share };
	}

	#showShares(rows: readonly Row[]): void {
		const sum = rows.reduce((total, { weight }) => total + weight.valueAsNumber, 0);
		for (const row of this.#rows) {
			row.share.value = rows.includes(row) ? `${Math.round((100 * row.weight.valueAsNumber) / sum)} %` : '–';
		}
	}

	/** A slider that is moved is heard all the while; a text when typing pauses. */
	#changed(pauseMs: number): void {
		this.with(this.#mainText);
		if (pauseMs === SLIDING_PAUSE_MS && this.#timer !== undefined) {
			return;
		}
		clearTimeout(this.#timer);
		this.#timer = setTimeout(() => {
			this.#timer = undefined;
			this.#onChange();
		}, pauseMs);
	}
}
