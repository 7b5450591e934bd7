/** What every measurement prints: where it was made, and a table of medians and 95th percentiles. */
import { execFileSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { percentile } from '../src/bench/timing.js';

export { percentile };

/** `median/p95`, one decimal. */
export const medianAndP95 = (values: readonly number[]): string =>
	values.length === 0 ? '-' : `${percentile(values, 0.5).toFixed(1)} / ${percentile(values, 0.95).toFixed(1)}`;

const commit = (): string => {
	try {
		return execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
	} catch {
		return 'unknown commit';
	}
};

/** Machine, commit and how busy the machine was with other things. */
export const printWhere = (): void => {
	const model = cpus()[0]?.model ?? 'unknown processor';
	console.log(`${cpus().length} x ${model}, Node ${process.versions.node}, ${commit()}, load before: ${(loadavg()[0] ?? 0).toFixed(2)}`);
};

/** A Markdown table, so that it can be pasted into the README. */
export const printTable = (head: readonly string[], rows: readonly (readonly string[])[]): void => {
	const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)));
	const line = (cells: readonly string[]): string => `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`;
	console.log([line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n'));
};
