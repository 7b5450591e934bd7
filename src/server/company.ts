/** Who is in a session: the connection that has it, and those who came to watch. Whom messages and frames go to, and who drives. */
import type { Clock } from '../base/time.js';
import type { MemberRole } from '../protocol/limits.js';
import type { ServerMessage } from '../protocol/messages.js';
import type { Viewer } from '../transport/transport.js';
import { DriverSeat } from './driver-seat.js';
import type { Member } from './member.js';

/** Many who come at once are told of together: at most one `session.members` to each in this time. */
const LEAST_ANNOUNCEMENT_INTERVAL_MS = 200;
/** Whatever connection the owner comes back with. */
const OWNER_ID = 'owner';

export type Companion = { readonly id: string; readonly member: Member; readonly role: MemberRole };

export class Company {
	readonly #clock: Clock;
	readonly #signal: AbortSignal;
	/** Bounded by `limits.max_viewers` and the owner. */
	readonly #present = new Map<Member, Companion>();
	readonly #seat: DriverSeat;
	/** `event_id` of requests for control that wait, by member. */
	readonly #requests = new Map<string, string | undefined>();
	/** Whose message is being done. */
	#cause: { readonly companion: Companion; readonly eventId: string | undefined } | undefined;
	#nextGuest = 1;
	#isShared = false;
	#announcedAtMs = Number.NEGATIVE_INFINITY;
	#isAnnouncing = false;

	/** `signal`: the session's. */
	constructor(clock: Clock, signal: AbortSignal) {
		this.#clock = clock;
		this.#signal = signal;
		this.#seat = new DriverSeat(OWNER_ID, {
			onGranted: (id) => this.#tellGranted(id),
			onRevoked: (id, reason) => this.#each((companion) => ({ type: 'control.revoked', member_id: id, reason, ...this.#eventIdFor(companion) })),
		});
	}

	/** Members that came to watch, or wait for their video. */
	get guests(): number {
		return [...this.#present.values()].filter(({ role }) => role !== 'owner').length;
	}

	get watching(): Viewer[] {
		return [...this.#present.keys()].flatMap((member) => member.watching);
	}

	/** Somebody is here, and nobody has asked for the video. */
	get isHeadless(): boolean {
		return this.#present.size > 0 && [...this.#present.keys()].every((member) => !member.wasOffered);
	}

	get members(): Member[] {
		return [...this.#present.keys()];
	}

	of(member: Member): Companion | undefined {
		return this.#present.get(member);
	}

	drives(member: Member): boolean {
		return this.#seat.driver === this.of(member)?.id;
	}

	add(member: Member, role: MemberRole): Companion {
		const companion: Companion = { id: role === 'owner' ? OWNER_ID : `guest-${this.#nextGuest++}`, member, role };
		this.#present.set(member, companion);
		if (role !== 'viewer') {
			this.#seat.join(companion.id);
		}
		return companion;
	}

	remove(member: Member): void {
		const companion = this.of(member);
		if (companion !== undefined) {
			this.#present.delete(member);
			this.#requests.delete(companion.id);
			this.#seat.leave(companion.id);
			this.announce();
		}
	}

	/** Another connection of the same member: whoever drives goes on driving. */
	replace(before: Member, after: Member): void {
		const companion = this.of(before);
		if (companion !== undefined) {
			this.#present.delete(before);
			this.#present.set(after, { ...companion, member: after });
		}
	}

	/** To everyone. */
	send(message: ServerMessage): void {
		for (const member of this.#present.keys()) {
			member.send(message);
		}
	}

	/** To everyone, with the `event_id` for its author alone: those of others may be the same by chance. */
	sendOf(author: Member | undefined, message: ServerMessage & { readonly event_id?: string }): void {
		for (const member of this.#present.keys()) {
			const { event_id: eventId, ...rest } = message;
			member.send(member === author && eventId !== undefined ? message : rest);
		}
	}

	/** Asks for control; who must wait for it is told with the rest of the company. */
	request(companion: Companion, eventId: string | undefined): void {
		this.#requests.set(companion.id, eventId);
		if (this.drives(companion.member)) {
			return this.#tellGranted(companion.id);
		}
		this.#doing(companion, eventId, () => this.#seat.request(companion.id));
		if (this.#seat.wants(companion.id)) {
			for (const other of this.#present.values()) {
				if (other.id === this.#seat.driver || other.role === 'owner') {
					other.member.send({ type: 'control.requested', member_id: companion.id });
				}
			}
		}
	}

	release(companion: Companion, eventId: string | undefined): void {
		this.#requests.delete(companion.id);
		this.#doing(companion, eventId, () => this.#seat.release(companion.id));
	}

	/** False when `toId` is nobody who may drive. */
	grant(companion: Companion, toId: string, eventId: string | undefined): boolean {
		return this.#doing(companion, eventId, () => this.#seat.grant(toId));
	}

	/** Tells everyone who is here, once there has been anybody but the owner. */
	announce(): void {
		this.#isShared ||= this.#present.size > 1;
		if (!this.#isShared || this.#isAnnouncing) {
			return;
		}
		const waitMs = this.#announcedAtMs + LEAST_ANNOUNCEMENT_INTERVAL_MS - this.#clock.nowMs();
		if (waitMs <= 0) {
			return this.#announceNow();
		}
		this.#isAnnouncing = true;
		this.#clock.sleep(waitMs, this.#signal).then(() => {
			this.#isAnnouncing = false;
			this.#announceNow();
		}, () => undefined);
	}

	#announceNow(): void {
		this.#announcedAtMs = this.#clock.nowMs();
		const members = [...this.#present.values()].map(({ id, role, member }) => ({
			member_id: id, role, is_watching: member.watching.length > 0, wants_control: this.#seat.wants(id),
		}));
		this.#each(({ id }) => ({ type: 'session.members', you: id, members, driver: this.#seat.driver ?? null }));
	}

	#doing<T>(companion: Companion, eventId: string | undefined, act: () => T): T {
		this.#cause = { companion, eventId };
		try {
			return act();
		} finally {
			this.#cause = undefined;
			this.announce();
		}
	}

	#tellGranted(id: string): void {
		const asked = this.#requests.get(id);
		this.#requests.delete(id);
		if (!this.#isShared) {
			return;
		}
		this.#each((companion) => ({
			type: 'control.granted', member_id: id,
			...(companion.id === id && asked !== undefined ? { event_id: asked } : this.#eventIdFor(companion)),
		}));
	}

	#eventIdFor(companion: Companion): { event_id?: string } {
		const { companion: causer, eventId } = this.#cause ?? {};
		return companion === causer && eventId !== undefined ? { event_id: eventId } : {};
	}

	#each(messageFor: (companion: Companion) => ServerMessage): void {
		for (const companion of [...this.#present.values()]) {
			companion.member.send(messageFor(companion));
		}
	}
}
