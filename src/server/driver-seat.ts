/**
 * Who steers a shared session: one at a time. The owner does at first, and may take it back at any moment; guests ask, wait in the order in
 * which they asked, and drive until they let go, hand over, or leave.
 */
import type { ServerMessages } from '../protocol/messages.js';

export type RevokeReason = ServerMessages['control.revoked']['reason'];

export type SeatEvents = {
	readonly onGranted: (memberId: string) => void;
	readonly onRevoked: (memberId: string, reason: RevokeReason) => void;
};

export class DriverSeat {
	readonly #ownerId: string;
	readonly #events: SeatEvents;
	/** Present members that may drive; the owner is not among them while away. */
	readonly #able = new Set<string>();
	/** In the order in which they asked; each once, so never more than there are members. */
	#asking: string[] = [];
	#driver: string | undefined;

	constructor(ownerId: string, events: SeatEvents) {
		this.#ownerId = ownerId;
		this.#events = events;
	}

	get driver(): string | undefined {
		return this.#driver;
	}

	wants(memberId: string): boolean {
		return this.#asking.includes(memberId);
	}

	/** A member that may drive has come. An owner drives at once unless somebody does. */
	join(memberId: string): void {
		this.#able.add(memberId);
		if (memberId === this.#ownerId && this.#driver === undefined) {
			this.#seat(memberId);
		}
	}

	leave(memberId: string): void {
		this.#able.delete(memberId);
		this.#asking = this.#asking.filter((id) => id !== memberId);
		if (this.#driver === memberId) {
			this.#vacate('left');
			this.#seatNext();
		}
	}

	/** Asks for the seat: at once when it is free or the owner asks, otherwise in turn. Asking twice changes nothing. */
	request(memberId: string): void {
		if (this.#driver === memberId || !this.#able.has(memberId)) {
			return;
		}
		if (this.#driver !== undefined && memberId !== this.#ownerId) {
			if (!this.wants(memberId)) {
				this.#asking.push(memberId);
			}
			return;
		}
		if (this.#driver !== undefined) {
			this.#vacate('granted');
		}
		this.#seat(memberId);
	}

	/** The driver lets go: to who asked first, else to the owner. Of one who asks: asks no more. */
	release(memberId: string): void {
		this.#asking = this.#asking.filter((id) => id !== memberId);
		if (this.#driver === memberId) {
			this.#vacate('released');
			this.#seatNext();
		}
	}

	/** Hands over. False when `toId` is nobody who may drive. */
	grant(toId: string): boolean {
		if (!this.#able.has(toId)) {
			return false;
		}
		if (this.#driver !== toId) {
			if (this.#driver !== undefined) {
				this.#vacate('granted');
			}
			this.#seat(toId);
		}
		return true;
	}

	#seatNext(): void {
		const next = this.#asking[0] ?? (this.#able.has(this.#ownerId) ? this.#ownerId : undefined);
		if (next !== undefined) {
			this.#seat(next);
		}
	}

	#seat(memberId: string): void {
		this.#asking = this.#asking.filter((id) => id !== memberId);
		this.#driver = memberId;
		this.#events.onGranted(memberId);
	}

	#vacate(reason: RevokeReason): void {
		const before = this.#driver;
		this.#driver = undefined;
		if (before !== undefined) {
			this.#events.onRevoked(before, reason);
		}
	}
}
