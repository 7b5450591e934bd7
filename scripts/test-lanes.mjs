// Which test files may run two at a time. The rest runs alone: what starts browsers and servers or measures time should not fight for two cores.
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

/** Paths below the tests that begin with one of these only compute, the commands among them in a process of their own. A new folder is alone until it is named here. */
export const COMPUTING = ['base/', 'cli/arguments.', 'cli/generate.', 'cli/import.', 'cli/join.', 'cli/keys.', 'cli/models.', 'cli/pull-to-video.', 'engine/', 'model/', 'native/', 'protocol/', 'verify/'];

/** Of these, alone all the same. */
export const ALONE = [
	'engine/device-choice.', // a self-test has a time limit
	'engine/recording-choice.', // the same
	'engine/orphan.', // so has the end of a process
	'engine/scratch-file.', // lays a folder out that every other process may sweep away
	'native/compiled.', // the compiler takes every core
	'native/emulated.', // so here; others use what it builds
];

/** Not alone, whatever they import. */
export const BESIDE = [
	'conformance/server-mistakes.', // each answer of its server may take 20 seconds or more, most a minute
	'server/pace.', // its clock is simulated; of what starts a server it takes the configuration
];

/** Modules that start a browser, an engine, an encoder or a server, and the difference of two clock readings. */
const NEEDS_THE_MACHINE = /from '(?:playwright-core|[^']*\/(?:engine-host|encoder-host|app|served|webrtc)\.js)'|\.now\(\) - /u;

/** Whether the file, or one of the tests' own that it imports, needs the machine for itself. */
const needsTheMachine = (file, folder, seen = new Set()) => {
	if (seen.has(file) || !file.startsWith(folder) || !existsSync(file)) {
		return false;
	}
	seen.add(file);
	const text = readFileSync(file, 'utf8');
	return NEEDS_THE_MACHINE.test(text) || [...text.matchAll(/from '(\.[^']+)'/gu)].some(([, path]) => needsTheMachine(resolve(dirname(file), path), folder, seen));
};

/** Sorts compiled test files, given by their paths below `folder`. */
export const lanesOf = (files, folder) => {
	const lanes = { beside: [], alone: [] };
	for (const file of files) {
		const isOneOf = (starts) => starts.some((start) => file.startsWith(start));
		const isComputing = () => isOneOf(COMPUTING) && !isOneOf(ALONE) && !needsTheMachine(join(folder, file), folder);
		lanes[isOneOf(BESIDE) || isComputing() ? 'beside' : 'alone'].push(file);
	}
	return lanes;
};
