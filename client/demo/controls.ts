/** On-screen controls made from what the model says it has, held like keys: a control goes back to its default when let go. */
import type { ModelInfo } from '../index.js';
import { watchGamepads, type StickAxes } from './gamepad.js';

type Control = ModelInfo['controls'][number];
type Set = (axes: { readonly [name: string]: number }) => void;

/** `name_x` and `name_y`, or one of them, are a pad. */
type Pad = { readonly name: string; readonly x: Control | undefined; readonly y: Control | undefined };

const padsOf = (controls: readonly Control[]): Pad[] => {
	const named = (name: string): Control | undefined => controls.find((control) => control.name === name);
	const names = controls.flatMap((control) => /^(.+)_[xy]$/u.exec(control.name)?.[1] ?? []);
	return [...new Set(names)].map((name) => ({ name, x: named(`${name}_x`), y: named(`${name}_y`) }));
};

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
	const add = (place: string, text: string, control: Control | undefined, end: 'min' | 'max'): void => {
		if (control !== undefined) {
			const made = holdButton(text, `${name} ${place}`, control, control[end], set);
			made.className = place;
			buttons.append(made);
		}
	};
	// Image rows count downwards, and so do the controls of the model.
	add('up', '▲', y, 'min');
	add('left', '◀', x, 'min');
	add('down', '▼', y, 'max');
	add('right', '▶', x, 'max');
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
		const control = pad[arrow[0]];
		if (control === undefined) {
			return;
		}
		event.preventDefault();
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

/** From the middle of a control to its end. */
const scaled = ({ min, max, default: middle }: Control, stick: number): number => middle + stick * (stick < 0 ? middle - min : max - middle);

const listenToSticks = (pads: readonly Pad[], set: Set): void => {
	watchGamepads((sticks: StickAxes) => set(Object.fromEntries(pads.slice(0, 2).flatMap(({ x, y }, index) =>
		[x, y].flatMap((control, axis) => (control === undefined ? [] : [[control.name, scaled(control, sticks[2 * index + axis] ?? 0)]]))))));
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
	listenToSticks(pads, set);
};
