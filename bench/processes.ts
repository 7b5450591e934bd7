/** Memory and processor time of a process and its descendants, from /proc: Linux only, empty elsewhere. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';

const field = (pid: number, name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'mu').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? Number.NaN);

/** `root` and everything that it started, by pid. */
const familyOf = (root: number): number[] => {
	if (!existsSync('/proc/self/status')) {
		return [];
	}
	const parents = new Map<number, number>();
	for (const pid of readdirSync('/proc').map(Number).filter(Number.isInteger)) {
		try {
			parents.set(pid, field(pid, 'PPid'));
		} catch {
			// Gone in the meantime.
		}
	}
	const isOurs = (pid: number | undefined): boolean => pid === root || (pid !== undefined && pid > 1 && isOurs(parents.get(pid)));
	return [...parents.keys()].filter(isOurs);
};

/** The script that a Node process runs, or the program: `main`, `engine-process`, `ffmpeg`. */
const nameOf = (pid: number, root: number): string => {
	if (pid === root) {
		return 'main';
	}
	const parts = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
	return basename(parts.find((part) => part.endsWith('.js')) ?? parts[0] ?? String(pid), '.js');
};

/** Resident memory, MB, of each process under `root`, by what it runs; the second of a kind has a 2 behind its name. */
export const residentByProcess = (root: number): Map<string, number> => {
	const sizes = new Map<string, number>();
	for (const pid of familyOf(root)) {
		const kind = nameOf(pid, root);
		const same = [...sizes.keys()].filter((name) => name === kind || name.startsWith(`${kind} `)).length;
		sizes.set(same === 0 ? kind : `${kind} ${same + 1}`, field(pid, 'VmRSS') / 1024);
	}
	return sizes;
};

/** Seconds of processor time, user and system, that a process has had so far (proc(5), fields 14 and 15 of stat, in hundredths). */
export const processorSeconds = (pid: number): number => {
	const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\)\s/u, '').split(' ');
	return (Number(fields[11]) + Number(fields[12])) / 100;
};

/** The same of `root` and everything that it started and that still runs. */
export const processorSecondsOf = (root: number): number => familyOf(root).reduce((sum, pid) => sum + processorSeconds(pid), 0);

/** Resident memory of all of them, MB; undefined where the system does not tell. */
export const residentMb = (root: number): number | undefined => {
	const sizes = [...residentByProcess(root).values()];
	return sizes.length === 0 ? undefined : sizes.reduce((sum, size) => sum + size, 0);
};
