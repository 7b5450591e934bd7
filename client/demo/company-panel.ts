/** Who is here: the link for others, who steers, and whose turn is next. */
import type { LiveSession, ServerMessages } from '../index.js';
import { button, element, make } from './element.js';

type Members = ServerMessages['session.members'];
type Note = (text: string) => void;

export class CompanyPanel {
	readonly #session: () => LiveSession;
	readonly #note: Note;

	constructor(session: () => LiveSession, note: Note) {
		this.#session = session;
		this.#note = note;
		element('share').onclick = () => void this.#try(() => this.#share());
		element('ask-control').onclick = () => void this.#try(() => this.#session().requestControl());
		element('release-control').onclick = () => void this.#try(() => this.#session().releaseControl());
	}

	/** `undefined`: alone. Says whether this page may steer. */
	show(members: Members | undefined): boolean {
		const you = members?.members.find((member) => member.member_id === members.you);
		const isDriving = members === undefined || members.driver === members.you;
		const watching = members?.members.filter((member) => member.is_watching).length ?? 0;
		element('viewers').textContent = watching > 1 ? `${watching} watching` : '';
		element('company').hidden = members === undefined || members.members.length < 2;
		element('company-state').textContent = isDriving ? 'You steer.' : you?.role === 'viewer' ? 'You watch.' : you?.wants_control === true ? 'You asked to steer.' : 'Somebody else steers.';
		element('ask-control').hidden = isDriving || you === undefined || you.role === 'viewer' || you.wants_control;
		element('release-control').hidden = !isDriving || members === undefined || you?.role === 'owner';
		element('share').hidden = you !== undefined && you.role !== 'owner';
		const mayGrant = isDriving || you?.role === 'owner';
		element('requests').replaceChildren(...(members?.members ?? []).filter((member) => member.wants_control && mayGrant && member.member_id !== members?.you).map((member) =>
			make('li', '', `${member.member_id} asks to steer `, button('Let them', () => void this.#try(() => this.#session().grantControl(member.member_id))))));
		document.body.dataset['driving'] = String(isDriving);
		return isDriving;
	}

	/** A link into a session that is over leads nowhere. */
	ended(): void {
		element('share-part').hidden = true;
		element<HTMLInputElement>('share-link').value = '';
	}

	async #share(): Promise<void> {
		const role = element<HTMLInputElement>('share-steer').checked ? 'guest' : 'viewer';
		const { token } = await this.#session().share({ role });
		const address = `${location.origin}${location.pathname}#token=${token}`;
		const field = element<HTMLInputElement>('share-link');
		field.value = address;
		element('share-part').hidden = false;
		field.select();
		try {
			await navigator.clipboard.writeText(address);
			this.#note('The link is copied: whoever opens it sees what you see.');
		} catch {
			this.#note('Copy the link: whoever opens it sees what you see.');
		}
	}

	async #try(action: () => Promise<unknown>): Promise<void> {
		try {
			await action();
		} catch (error) {
			this.#note(error instanceof Error ? error.message : String(error));
		}
	}
}
