/**
 * Who may generate, and who waits. A session is let in while there is a place, memory for its stream, and the engine's time suffices for it and those that
 * run, some of which may give way by taking fewer steps; others wait in one line, first come, first served, which no key and no address may fill alone.
 */
import type { Clock } from '../base/time.js';
import type { Engine, EngineState } from '../engine/engine.js';
import type { ChunkTimings } from '../engine/protocol.js';
import { chunkMs } from '../model/spec.js';
import { assertNever } from '../protocol/assert-never.js';
import { TurbocastError } from '../protocol/errors.js';
import { ChunkCost, type ChunkShape } from './chunk-cost.js';
import { megabytes, type MemoryBudget, placeName, type Shortage } from './memory-budget.js';

/** How long a session is taken to last before any has ended: a short one. */
const FIRST_GUESS_MS = 10_000;
/** How long it takes to measure the first chunk, when that is all that keeps one waiting. */
const MEASURING_MS = 1000;
/** Weight of the session that ended last in the mean of how long they last. */
const NEWEST_WEIGHT = 0.3;
/** When to ask again during a shutdown: what stands in front has found another server by then, or this one is back soon after. */
const RETRY_WHEN_DRAINING_MS = 2000;
/** When to ask again while the engine starts: about half a start. */
const RETRY_WHEN_STARTING_MS = 1000;
const SHORTEST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 600_000;

export type AdmissionOptions = {
	readonly engine: Engine;
	readonly clock: Clock;
	readonly places: number;
	/** Sessions that may wait; 0 refuses at once. */
	readonly maxWaiting: number;
	/** Running and waiting sessions of one key, and of one address; 0 for any number. */
	readonly maxPerKey: number;
	readonly maxPerAddress: number;
	/** Share of real time, 0 to 1, that all sessions together may take of the engine. */
	readonly maxShare: number;
	/** Of all streams together; without it memory keeps nobody out. */
	readonly memory?: MemoryBudget | undefined;
	/** What a prompt without wishes would ask for. */
	readonly usual: ChunkShape;
};

export type QueuePlace = { readonly position: number; readonly queueSize: number; readonly estimatedWaitMs: number };

export type Wish = ChunkShape & {
	readonly keyId: string | undefined;
	readonly address: string;
	/** Rather fewer steps than waiting, and than letting others wait. */
	readonly allowFewerSteps: boolean;
	/** Called when a session that runs and allows it is given other steps, to let another in or because one has ended. */
	readonly onSteps: (steps: number) => void;
	/** Called when somebody has to wait while this one has a place. */
	readonly onWanted?: () => void;
	/** Called when it has to wait, and whenever its position changes. */
	readonly onQueued: (place: QueuePlace) => void;
};

/** The steps that a session is let in with, and those that others have from then on. */
type Plan = { readonly steps: number; readonly giveWay: ReadonlyMap<Ticket, number> };

/** A place, or one in the line. */
export class Ticket {
	readonly wish: Wish;
	/** Asked for while it waits, in use once it is admitted. */
	steps: number;
	/** Asked for last. */
	wishedSteps: number;
	/** Clock time; `undefined` while it waits. */
	startedAtMs: number | undefined;
	/** Last told; 0 for never. */
	position = 0;
	/** Resolves when the session may begin; rejects when it never may. */
	readonly admitted: Promise<void>;
	readonly admit: () => void;
	readonly refuse: (error: TurbocastError) => void;
	readonly #admission: Admission;

	constructor(admission: Admission, wish: Wish) {
		this.#admission = admission;
		this.wish = wish;
		this.steps = wish.steps;
		this.wishedSteps = wish.steps;
		let admit: () => void = () => undefined;
		let refuse: (error: TurbocastError) => void = () => undefined;
		this.admitted = new Promise((resolve, reject) => {
			admit = resolve;
			refuse = reject;
		});
		this.admitted.catch(() => undefined);
		this.admit = admit;
		this.refuse = refuse;
	}

	get isWaiting(): boolean {
		return this.startedAtMs === undefined;
	}

	/** Resolves when the session may begin or the signal aborts, rejects when it never may. */
	async waitForPlace(signal: AbortSignal): Promise<void> {
		const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
		await Promise.race([this.admitted, ended]);
	}

	/** Other steps from now on. Throws `capacity_exhausted` when the sessions that run leave no time for more. */
	useSteps(steps: number): void {
		this.#admission.changeSteps(this, steps);
	}

	/** Says again where in the line it is; nothing once it is admitted. */
	tellPlace(): void {
		this.#admission.tellPlace(this);
	}

	/** Gives the place back, or leaves the line. Idempotent. */
	release(): void {
		this.#admission.release(this);
	}
}

export const draining = (): TurbocastError =>
	new TurbocastError('draining', 'The server is shutting down; connect again: to another server, or to this one after its restart.', { retryAfterMs: RETRY_WHEN_DRAINING_MS });

export class Admission {
	readonly #options: AdmissionOptions;
	readonly #cost = new ChunkCost();
	readonly #running = new Set<Ticket>();
	/** Bounded by `maxWaiting`. */
	#waiting: Ticket[] = [];
	#meanMs = FIRST_GUESS_MS;
	#isDraining = false;
	/** Those who wait for a place to be given back. */
	readonly #releases: (() => void)[] = [];
	readonly #stopListening: () => void;

	constructor(options: AdmissionOptions) {
		this.#options = options;
		this.#stopListening = options.engine.onState((state) => this.#engineChanged(state));
	}

	get places(): number {
		return this.#options.places;
	}

	/** Share of real time that the sessions that run take of the engine. */
	get share(): number {
		return this.#shareOf([...this.#running]);
	}

	get taken(): number {
		return this.#running.size;
	}

	get free(): number {
		return this.#options.places - this.#running.size;
	}

	get waiting(): number {
		return this.#waiting.length;
	}

	/** Whether a prompt would start without waiting. */
	get startsAtOnce(): boolean {
		return this.#closed() === undefined && this.#waiting.length === 0 && this.#planFor(this.#options.usual, false) !== undefined;
	}

	/** Why a prompt would be refused, or `undefined` when it would start or wait in line. */
	obstacle(): TurbocastError | undefined {
		return this.#closed() ?? (this.startsAtOnce || this.#waiting.length < this.#placesInLine ? undefined : this.#full());
	}

	/** A place, or one in the line. Throws why there is neither, `not_enough_memory` where there never would be. */
	enter(wish: Wish): Ticket {
		const closed = this.#closed();
		if (closed !== undefined) {
			throw closed;
		}
		const lacking = this.#options.memory?.shortage([wish]);
		if (lacking !== undefined) {
			throw new TurbocastError('not_enough_memory', `A stream of ${wish.width}x${wish.height} needs ${megabytes(lacking.neededBytes)} of the memory ${placeName(lacking.place)}, and streams may take ${megabytes(lacking.budgetBytes)} (engine.memory_mb); ask for a smaller size.`, { param: 'size' });
		}
		this.#checkLimits(wish);
		const ticket = new Ticket(this, wish);
		this.#waiting.push(ticket);
		this.#advance();
		if (ticket.isWaiting && this.#waiting.length > this.#placesInLine) {
			this.#waiting.pop();
			throw this.#full();
		}
		this.#tellPositions();
		if (ticket.isWaiting) {
			this.#running.forEach(({ wish: { onWanted } }) => onWanted?.());
		}
		return ticket;
	}

	/** A chunk was computed: the measure of what fits. */
	observe(shape: ChunkShape, timings: ChunkTimings): void {
		const wasMeasuring = this.#isMeasuring;
		this.#cost.observe(shape, timings);
		this.#advance();
		while (wasMeasuring && this.#waiting.length > this.#placesInLine) {
			this.#waiting.pop()?.refuse(this.#full());
		}
		this.#tellPositions();
	}

	/** From now on nobody is let in, and nobody waits any longer. Idempotent. */
	drain(): void {
		this.#isDraining = true;
		this.#stopListening();
		this.#refuseAll(draining());
	}

	get isDraining(): boolean {
		return this.#isDraining;
	}

	/** Resolves when no session runs any more. */
	async empty(): Promise<void> {
		while (this.#running.size > 0) {
			await new Promise<void>((resolve) => this.#releases.push(resolve));
		}
	}

	release(ticket: Ticket): void {
		if (this.#running.delete(ticket)) {
			const lastedMs = this.#options.clock.nowMs() - (ticket.startedAtMs ?? 0);
			this.#meanMs += NEWEST_WEIGHT * (lastedMs - this.#meanMs);
			this.#releases.splice(0).forEach((tell) => tell());
		} else {
			this.#waiting = this.#waiting.filter((other) => other !== ticket);
		}
		this.#advance();
		this.#raise();
		this.#tellPositions();
	}

	tellPlace(ticket: Ticket): void {
		if (this.#waiting.includes(ticket)) {
			ticket.position = 0;
			this.#tellPositions();
		}
	}

	changeSteps(ticket: Ticket, steps: number): void {
		const others = [...this.#running].filter((other) => other !== ticket);
		if (!ticket.isWaiting && steps > ticket.steps && others.length > 0 && this.#shareOf(others) + this.#share({ ...ticket.wish, steps }) > this.#options.maxShare) {
			throw new TurbocastError('capacity_exhausted', `The sessions that run leave no time for ${steps} steps; go on with ${ticket.steps}, and try again when one has ended.`, { retryAfterMs: this.#retryAfterMs(), param: 'parameters.steps' });
		}
		ticket.steps = steps;
		ticket.wishedSteps = steps;
	}

	#closed(): TurbocastError | undefined {
		if (this.#isDraining) {
			return draining();
		}
		const { state } = this.#options.engine;
		switch (state.kind) {
			case 'ready':
				return undefined;
			case 'starting':
				return new TurbocastError('not_ready', 'The engine is still starting; try again in a moment.', { retryAfterMs: RETRY_WHEN_STARTING_MS });
			case 'restarting':
				return new TurbocastError('not_ready', 'The engine failed and is being restarted; try again in a moment.', { retryAfterMs: RETRY_WHEN_STARTING_MS });
			case 'failed':
				return state.error;
			case 'closed':
				return new TurbocastError('draining', 'The engine is closed because the server is shutting down.');
			default:
				return assertNever(state);
		}
	}

	#full(): TurbocastError {
		const { places } = this.#options;
		const lacking = this.free > 0 ? this.#shortageWith(this.#waiting[0]?.wish ?? this.#options.usual) : undefined;
		const taken = lacking !== undefined ? `With another session streams would take ${megabytes(lacking.neededBytes)} of the memory ${placeName(lacking.place)}, of ${megabytes(lacking.budgetBytes)} that they may (engine.memory_mb)`
			: this.free > 0 ? 'The sessions that run leave no time for another' : places === 1 ? 'The only place is taken' : `All ${places} places are taken`;
		const line = this.#waiting.length === 0 ? '' : `, and ${this.#waiting.length} ${this.#waiting.length === 1 ? 'waits' : 'wait'}`;
		return new TurbocastError('capacity_exhausted', `${taken}${line}; try again when a session has ended.`, { retryAfterMs: this.#retryAfterMs() });
	}

	#checkLimits({ keyId, address }: Wish): void {
		const { maxPerKey, maxPerAddress } = this.#options;
		const everyone = [...this.#running, ...this.#waiting];
		for (const [what, most, count] of [
			['key', maxPerKey, keyId === undefined ? 0 : everyone.filter(({ wish }) => wish.keyId === keyId).length],
			['address', maxPerAddress, everyone.filter(({ wish }) => wish.address === address).length],
		] as const) {
			if (most > 0 && count >= most) {
				throw new TurbocastError('rate_limited', `At most ${most} sessions of one ${what} may run and wait; try again when one of them has ended.`, { retryAfterMs: this.#retryAfterMs() });
			}
		}
	}

	/** Lets in from the head of the line whoever fits. Who waits there is passed by nobody, so that it cannot starve. */
	#advance(): void {
		while (this.#closed() === undefined) {
			const [head] = this.#waiting;
			const plan = head === undefined ? undefined : this.#planFor({ ...head.wish, steps: head.steps }, head.wish.allowFewerSteps);
			if (head === undefined || plan === undefined) {
				return;
			}
			this.#waiting.shift();
			plan.giveWay.forEach((steps, ticket) => this.#setSteps(ticket, steps));
			head.steps = plan.steps;
			head.startedAtMs = this.#options.clock.nowMs();
			this.#running.add(head);
			head.admit();
		}
	}

	/**
	 * How a session could be let in: with the wished steps or, where fewer are welcome, the most that fit; then by those that run giving
	 * way, who allow it, a level at a time from whoever has most. A session alone always fits: it may be slow, but it runs.
	 */
	#planFor(shape: ChunkShape, allowFewer: boolean): Plan | undefined {
		if (this.free <= 0 || this.#isMeasuring || this.#shortageWith(shape) !== undefined) {
			return undefined;
		}
		const giveWay = new Map<Ticket, number>();
		if (this.#running.size === 0) {
			return { steps: shape.steps, giveWay };
		}
		const wishes = [shape.steps, ...(allowFewer ? this.#levelsBelow(shape.steps) : [])];
		let taken = this.share;
		const fits = (steps: number): boolean => taken + this.#share({ ...shape, steps }) <= this.#options.maxShare;
		let steps = wishes.find(fits);
		const least = wishes.at(-1) ?? shape.steps;
		while (steps === undefined) {
			const [most] = [...this.#running]
				.filter((ticket) => ticket.wish.allowFewerSteps)
				.map((ticket) => ({ ticket, now: giveWay.get(ticket) ?? ticket.steps }))
				.filter(({ now }) => this.#levelsBelow(now).length > 0)
				.sort((one, two) => two.now - one.now);
			const [next] = most === undefined ? [] : this.#levelsBelow(most.now);
			if (most === undefined || next === undefined) {
				return undefined;
			}
			giveWay.set(most.ticket, next);
			taken -= this.#share({ ...most.ticket.wish, steps: most.now }) - this.#share({ ...most.ticket.wish, steps: next });
			steps = fits(least) ? least : undefined;
		}
		return { steps, giveWay };
	}

	/** What lacks of memory for one more beside those that run. */
	#shortageWith(shape: ChunkShape): Shortage | undefined {
		return this.#options.memory?.shortage([...[...this.#running].map(({ wish }) => wish), shape]);
	}

	/** Gives back the steps that sessions were let in without, or gave way with, while nobody waits. */
	#raise(): void {
		const levels = Object.keys(this.#options.engine.model.schedules).map(Number).sort((a, b) => a - b);
		while (this.#waiting.length === 0) {
			const fits = (ticket: Ticket, steps: number): boolean =>
				this.#running.size === 1 || this.share - this.#share({ ...ticket.wish, steps: ticket.steps }) + this.#share({ ...ticket.wish, steps }) <= this.#options.maxShare;
			const [next] = [...this.#running]
				.sort((one, two) => one.steps - two.steps)
				.flatMap((ticket) => levels.filter((steps) => steps > ticket.steps && steps <= ticket.wishedSteps).slice(0, 1).map((steps) => ({ ticket, steps })))
				.filter(({ ticket, steps }) => fits(ticket, steps));
			if (next === undefined) {
				return;
			}
			this.#setSteps(next.ticket, next.steps);
		}
	}

	#setSteps(ticket: Ticket, steps: number): void {
		ticket.steps = steps;
		ticket.wish.onSteps(steps);
	}

	/** Numbers of steps that the model can do, below this one, the most first. */
	#levelsBelow(steps: number): number[] {
		return Object.keys(this.#options.engine.model.schedules).map(Number).filter((level) => level < steps).sort((a, b) => b - a);
	}

	/** A session runs, and what a chunk costs is not known yet: the next one waits for the first chunk rather than for luck. */
	get #isMeasuring(): boolean {
		return !this.#cost.isKnown && this.#running.size > 0;
	}

	/** Those who wait for nothing but the first measurement are no line. */
	get #placesInLine(): number {
		return this.#options.maxWaiting + (this.#isMeasuring ? Math.max(0, this.free) : 0);
	}

	/** Share of real time that one session takes of the engine. */
	#share(shape: ChunkShape): number {
		return this.#cost.ms(shape) / chunkMs(this.#options.engine.model);
	}

	#shareOf(tickets: readonly Ticket[]): number {
		return tickets.reduce((sum, { wish, steps }) => sum + this.#share({ ...wish, steps }), 0);
	}

	/** As many sessions end, at their mean length, as run now. */
	#waitMs(position: number): number {
		if (this.#isMeasuring && position <= this.free) {
			return MEASURING_MS;
		}
		return Math.ceil(position / Math.max(1, this.#running.size)) * this.#meanMs;
	}

	#retryAfterMs(): number {
		return Math.round(Math.min(LONGEST_RETRY_MS, Math.max(SHORTEST_RETRY_MS, this.#waitMs(this.#waiting.length + 1))));
	}

	/** Only whose position changed: one who joins at the end costs nobody else a message. */
	#tellPositions(): void {
		this.#waiting.forEach((ticket, index) => {
			const position = index + 1;
			if (ticket.position !== position) {
				ticket.position = position;
				ticket.wish.onQueued({ position, queueSize: this.#waiting.length, estimatedWaitMs: this.#waitMs(position) });
			}
		});
	}

	#engineChanged(state: EngineState): void {
		if (state.kind === 'failed') {
			this.#refuseAll(state.error);
		} else if (state.kind === 'ready') {
			this.#advance();
			this.#tellPositions();
		}
	}

	#refuseAll(error: TurbocastError): void {
		this.#waiting.splice(0).forEach((ticket) => ticket.refuse(error));
	}
}
