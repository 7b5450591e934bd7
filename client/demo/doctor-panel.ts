/** The panel that says which hop between here and the picture fails, and what to do. */
import type { BrowserSession, Finding } from '../index.js';
import { element, make } from './element.js';

const SIGNS: { readonly [verdict in Finding['verdict']]: string } = { good: 'ok', doubtful: 'note', broken: 'fails' };

const row = ({ hop, verdict, sentence, fix, diagnosis }: Finding): HTMLElement => {
	const item = make('li', verdict, '');
	item.dataset['hop'] = hop;
	if (diagnosis !== undefined) {
		item.dataset['diagnosis'] = diagnosis;
	}
	item.append(make('b', '', `${hop}: ${SIGNS[verdict]}`), ` ${sentence}`, ...(fix === undefined ? [] : [make('span', 'fix', fix)]));
	return item;
};

export class DoctorPanel {
	readonly #session: () => BrowserSession;

	constructor(session: () => BrowserSession) {
		this.#session = session;
		const button = element<HTMLButtonElement>('doctor-check');
		button.addEventListener('click', () => {
			button.disabled = true;
			element('doctor-verdict').textContent = 'Looking …';
			void this.#look().finally(() => {
				button.disabled = false;
			});
		});
	}

	async #look(): Promise<void> {
		const findings = await this.#session().diagnose();
		element('doctor-findings').replaceChildren(...findings.map(row));
		const worst = findings.find(({ verdict }) => verdict === 'broken') ?? findings.find(({ verdict }) => verdict === 'doubtful');
		element('doctor-verdict').textContent = worst === undefined ? 'Nothing is wrong.' : `${worst.verdict === 'broken' ? 'This fails' : 'The picture comes; worth a look'}: ${worst.hop}.`;
	}
}
