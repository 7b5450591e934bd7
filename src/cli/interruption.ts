/** Why a command is to end: the person pressed Ctrl-C, or the system asks. */
export class Interruption extends Error {
	override readonly name = 'Interruption';
	readonly signal: 'SIGINT' | 'SIGTERM';

	constructor(signal: 'SIGINT' | 'SIGTERM') {
		super(`interrupted by ${signal}`);
		this.signal = signal;
	}
}
