/** The parts of the page, by their ids. */

export const element = <T extends HTMLElement = HTMLElement>(id: string): T => {
	const found = document.getElementById(id);
	if (found === null) {
		throw new Error(`The page has no #${id}.`);
	}
	return found as T;
};

export const make = <K extends keyof HTMLElementTagNameMap>(tag: K, className: string, ...children: (Node | string)[]): HTMLElementTagNameMap[K] => {
	const made = document.createElement(tag);
	made.className = className;
	made.append(...children);
	return made;
};

export const button = (text: string, onClick: () => void): HTMLButtonElement => {
	const made = make('button', '', text);
	made.type = 'button';
	made.addEventListener('click', onClick);
	return made;
};
