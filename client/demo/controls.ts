/** On-screen controls made from what the model says it has, held like keys: a control goes back to its default when let go. */
import type { ModelInfo } from '../index.js';

type Control = ModelInfo['controls'][number];
type Set = (axes: { readonly [name: string]: number }) => void;

/** A pair `name_x`, `name_y` is a pad. */
type Pad = { readonly name: string; readonly x: Control; readonly y: Control };

const padsOf = (controls: readonly Control[]): Pad[] =>
	controls.flatMap((x) => {
		const name = /^(.+)_x$/u.exec(x.name)?.[1];
		const y = controls.find((control) => control.name === `${name ?? ''}_y`);
		return name === undefined || y === undefined ? [] : [{ name, x, y }];
	});

const holdButton = (text: string, label: string, control: Control, value: number, set: Set): HTMLButtonElement => {
	const button = document.createElement('button');
	button.type = 'button';
	button.textContent = text;
	button.setAttribute('aria-label', label);
	button.setAttribute('aria-pressed', 'false');
	const hold = (isHeld: boolean): void => {
		if ((button.getAttribute('aria-pressed') === 'true') !== isHeld) {
			button.setAttribute('aria-pressed', String(isHeld));
			set({ [control.name]: isHeld ? value : control.default });
		}
	};
	button.addEventListener('pointerdown', (event) => {
		button.setPointerCapture(event.pointerId);
		hold(true);
	});
	for (const type of ['pointerup', 'pointercancel', 'lostpointercapture', 'blur'] as const) {
		button.addEventListener(type, () => hold(false));
	}
	button.addEventListener('keydown', (event) => (event.key === ' ' || event.key === 'Enter') && hold(true));
	button.addEventListener('keyup', () => hold(false));
	return button;
};

const padElement = ({ name, x, y }: Pad, set: Set, keys: string): HTMLElement => {
	const pad = document.createElement('div');
	pad.className = 'pad';
	const buttons = document.createElement('div');
	buttons.className = 'pad-keys';
	// Image rows count downwards, and so do the controls of the model.
	buttons.append(
		holdButton('▲', `${name} up`, y, y.min, set), holdButton('◀', `${name} left`, x, x.min, set),
		holdButton('▼', `${name} down`, y, y.max, set), holdButton('▶', `${name} right`, x, x.max, set),
	);
	const caption = document.createElement('span');
	const hint = document.createElement('small');
	hint.textContent = keys === '' ? '' : ` ${keys}`;
	caption.append(name, hint);
	pad.append(buttons, caption);
	return pad;
};

const ARROWS: { readonly [key: string]: readonly ['x' | 'y', 'min' | 'max'] } = {
	ArrowLeft: ['x', 'min'], ArrowRight: ['x', 'max'], ArrowUp: ['y', 'min'], ArrowDown: ['y', 'max'],
};

/** Arrow keys drive the first pad, with Shift the second, unless somebody is typing. */
const listenToArrows = (pads: readonly Pad[], set: Set): void => {
	const held = new Map<string, Control>();
	document.addEventListener('keydown', (event) => {
		const arrow = ARROWS[event.key];
		const pad = pads[event.shiftKey ? 1 : 0];
		if (arrow === undefined || pad === undefined || event.repeat || event.target instanceof HTMLInputElement) {
			return;
		}
		event.preventDefault();
		const control = pad[arrow[0]];
		held.set(event.key, control);
		set({ [control.name]: control[arrow[1]] });
	});
	document.addEventListener('keyup', (event) => {
		const control = held.get(event.key);
		if (control !== undefined) {
			held.delete(event.key);
			set({ [control.name]: control.default });
		}
	});
};

/** Fills `container` with the controls of the model; `set` is called with what changed. */
export const buildControls = (container: HTMLElement, controls: readonly Control[], set: Set): void => {
	const pads = padsOf(controls);
	const others = controls.filter((control) => !pads.some((pad) => pad.x === control || pad.y === control));
	const holds = document.createElement('div');
	holds.className = 'holds';
	for (const control of others) {
		const name = control.name.replaceAll('_', ' ');
		if (control.min < control.default) {
			holds.append(holdButton(`${name} −`, `${name} less`, control, control.min, set));
		}
		if (control.max > control.default) {
			holds.append(holdButton(control.min < control.default ? `${name} +` : name, control.label, control, control.max, set));
		}
	}
	container.replaceChildren(...pads.map((pad, index) => padElement(pad, set, ['← ↑ ↓ →', 'shift ← ↑ ↓ →'][index] ?? '')), ...(others.length === 0 ? [] : [holds]));
	listenToArrows(pads, set);
};
