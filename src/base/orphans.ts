/** What a process that was killed left behind, known by a mark in its name. */
import { hostname } from 'node:os';

/** Containers may share a folder, but not their processes' numbers. */
const HOST = `${hostname().replaceAll(/[^\w.-]/gu, '_')}-`;

/** Of this process. */
export const PROCESS_MARK = `${HOST}${process.pid}`;

const isAlive = (pid: number): boolean => {
	try {
		return process.kill(pid, 0);
	} catch (error) {
		// Somebody else's process is one too.
		return (error as NodeJS.ErrnoException).code === 'EPERM';
	}
};

/** Whether `mark`, or what begins with it and a dash, is of a process of this machine that is gone. */
export const isOrphaned = (mark: string): boolean => {
	const [, pid] = mark.startsWith(HOST) ? /^(\d+)(?:-|$)/u.exec(mark.slice(HOST.length)) ?? [] : [];
	return pid !== undefined && !isAlive(Number(pid));
};
