/** Counters, gauges and histograms with fixed buckets, written as Prometheus text (exposition format 0.0.4). */

export type Labels = { readonly [name: string]: string };

const labelText = (labels: Labels): string => {
	const entries = Object.entries(labels);
	const escape = (value: string): string => value.replace(/\\/gu, '\\\\').replace(/\n/gu, '\\n').replace(/"/gu, '\\"');
	return entries.length === 0 ? '' : `{${entries.map(([name, value]) => `${name}="${escape(value)}"`).join(',')}}`;
};

type Metric = { readonly name: string; readonly help: string; readonly kind: 'counter' | 'gauge' | 'histogram'; readonly lines: () => string[] };

export class Counter {
	#values = new Map<string, number>();

	add(amount = 1, labels: Labels = {}): void {
		const key = labelText(labels);
		this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
	}

	lines(name: string): string[] {
		return [...this.#values].map(([labels, value]) => `${name}${labels} ${value}`);
	}
}

export class Histogram {
	readonly #bounds: readonly number[];
	readonly #counts: number[];
	#sum = 0;
	#count = 0;

	constructor(bounds: readonly number[]) {
		this.#bounds = bounds;
		this.#counts = bounds.map(() => 0);
	}

	observe(value: number): void {
		this.#sum += value;
		this.#count += 1;
		for (const [index, bound] of this.#bounds.entries()) {
			if (value <= bound) {
				this.#counts[index] = (this.#counts[index] ?? 0) + 1;
			}
		}
	}

	lines(name: string): string[] {
		return [
			...this.#bounds.map((bound, index) => `${name}_bucket{le="${bound}"} ${this.#counts[index] ?? 0}`),
			`${name}_bucket{le="+Inf"} ${this.#count}`,
			`${name}_sum ${this.#sum}`,
			`${name}_count ${this.#count}`,
		];
	}
}

export class Metrics {
	readonly #metrics: Metric[] = [];

	counter(name: string, help: string): Counter {
		const counter = new Counter();
		this.#metrics.push({ name, help, kind: 'counter', lines: () => counter.lines(name) });
		return counter;
	}

	/** Read when the metrics are asked for. */
	gauge(name: string, help: string, read: () => number): void {
		this.#metrics.push({ name, help, kind: 'gauge', lines: () => [`${name} ${read()}`] });
	}

	/** `bounds` are upper ends of the buckets, ascending, in the unit that the name ends with. */
	histogram(name: string, help: string, bounds: readonly number[]): Histogram {
		const histogram = new Histogram(bounds);
		this.#metrics.push({ name, help, kind: 'histogram', lines: () => histogram.lines(name) });
		return histogram;
	}

	text(): string {
		return this.#metrics
			.flatMap(({ name, help, kind, lines }) => [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`, ...lines()])
			.join('\n') + '\n';
	}
}
