/** What goes into a forward of several streams. */
import { nameOfStream } from '../model/stream-names.js';
import { TurbocastError } from '../protocol/errors.js';
import type { Feeds } from './backend.js';

/** The feeds of several streams as those of one forward. */
export const sharedFeeds = (all: readonly Feeds[]): Feeds =>
	Object.fromEntries(all.flatMap((feeds, stream) => Object.entries(feeds).map(([name, tensor]) => [nameOfStream(name, stream, all.length), tensor])));

export const noSuchSize = (streams: number): never => {
	throw new TurbocastError('internal', `There is no forward for ${streams} streams.`);
};
