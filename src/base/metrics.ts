/** Counters, gauges and histograms with fixed buckets, written as Prometheus text (exposition format 0.0.4). */

export type Labels = { readonly [name: string]: string };
/** One number, or one for each set of labels. */
export type Reading = number | readonly { readonly labels: Labels; readonly value: number }[];

const labelText = (labels: Labels): string => {
	const entries = Object.entries(labels);
	const escape = (value: string): string => value.replace(/\\/gu, '\\\\').replace(/\n/gu, '\\n').replace(/"/gu, '\\"');
	return entries.length === 0 ? '' : `{${entries.map(([name, value]) => `${name}="${escape(value)}"`).join(',')}}`;
};

const readingLines = (name: string, reading: Reading): string[] =>
	typeof reading === 'number' ? [`${name} ${reading}`] : reading.map(({ labels, value }) => `${name}${labelText(labels)} ${value}`);

type Metric = { readonly name: string; readonly help: string; readonly kind: 'counter' | 'gauge' | 'histogram'; readonly lines: () => string[] };

export class Counter {
	readonly #values = new Map<string, number>();

	add(amount = 1, labels: Labels = {}): void {
		const key = labelText(labels);
		this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
	}

	lines(name: string): string[] {
		return [...this.#values].map(([labels, value]) => `${name}${labels} ${value}`);
	}
}

type Series = { readonly labels: Labels; readonly counts: number[]; sum: number; count: number };

export class Histogram {
	readonly #bounds: readonly number[];
	readonly #series = new Map<string, Series>();

	constructor(bounds: readonly number[]) {
		this.#bounds = bounds;
	}

	observe(value: number, labels: Labels = {}): void {
		const series = this.#seriesOf(labels);
		series.sum += value;
		series.count += 1;
		for (const [index, bound] of this.#bounds.entries()) {
			if (value <= bound) {
				series.counts[index] = (series.counts[index] ?? 0) + 1;
			}
		}
	}

	lines(name: string): string[] {
		return [...this.#series].flatMap(([key, { labels, counts, sum, count }]) => [
			...this.#bounds.map((bound, index) => `${name}_bucket${labelText({ ...labels, le: String(bound) })} ${counts[index] ?? 0}`),
			`${name}_bucket${labelText({ ...labels, le: '+Inf' })} ${count}`,
			`${name}_sum${key} ${sum}`,
			`${name}_count${key} ${count}`,
		]);
	}

	#seriesOf(labels: Labels): Series {
		const key = labelText(labels);
		const series = this.#series.get(key) ?? { labels, counts: this.#bounds.map(() => 0), sum: 0, count: 0 };
		this.#series.set(key, series);
		return series;
	}
}

export class Metrics {
	readonly #metrics: Metric[] = [];

	counter(name: string, help: string): Counter {
		const counter = new Counter();
		this.#metrics.push({ name, help, kind: 'counter', lines: () => counter.lines(name) });
		return counter;
	}

	/** A counter that somebody else keeps; read when the metrics are asked for. */
	counterOf(name: string, help: string, read: () => Reading): void {
		this.#metrics.push({ name, help, kind: 'counter', lines: () => readingLines(name, read()) });
	}

	/** Read when the metrics are asked for. */
	gauge(name: string, help: string, read: () => Reading): void {
		this.#metrics.push({ name, help, kind: 'gauge', lines: () => readingLines(name, read()) });
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
