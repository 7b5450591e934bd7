/** One stream's name of an input or output of a forward that is shared: as it is where there is but one. */
export const nameOfStream = (name: string, stream: number, streams: number): string => (streams === 1 ? name : `${name}.of${stream}`);
