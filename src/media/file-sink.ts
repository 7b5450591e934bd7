/** What a file format does; `file-writer.ts` does the rest. */

export type VideoFormat = {
	/** Pixels, even. */
	readonly width: number;
	readonly height: number;
	readonly fps: number;
	/** An ffmpeg to use in place of the package's; empty for that one. Only .mp4 needs it. */
	readonly ffmpegPath?: string;
};

export type FileSink = {
	/** I420. Awaiting is backpressure. Throws `output_failed`. */
	readonly write: (data: Uint8Array) => Promise<void>;
	/** Resolves when every byte is in the file. Throws `output_failed`. */
	readonly finish: () => Promise<void>;
	/** Stops at once and leaves the file as it is; never throws. */
	readonly destroy: () => Promise<void>;
};

/** `path` exists and is empty. */
export type OpenFileSink = (path: string, format: VideoFormat) => FileSink;
