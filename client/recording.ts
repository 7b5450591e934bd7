/** The server's recording of a session, as a file. */
import { ERROR_CODES, TurbocastError } from '../src/protocol/errors.js';

/** Media time, ms. By default all that the server kept. */
export type RecordingSpan = { readonly fromMs?: number; readonly toMs?: number; /** Instead of `fromMs`. */ readonly lastMs?: number };

/** `url`: of the control socket, whose path ends in `/video`. Throws what the server answers. */
export const fetchRecording = async (url: string, id: string, token: string | undefined, { fromMs, toMs, lastMs }: RecordingSpan, signal: AbortSignal | undefined): Promise<Blob> => {
	const address = new URL(url.replace(/^ws/u, 'http'));
	address.pathname = address.pathname.replace(/\/video$/u, `/sessions/${id}/recording.mp4`);
	address.search = '';
	for (const [name, value] of Object.entries({ from_ms: fromMs, to_ms: toMs, last_ms: lastMs })) {
		if (value !== undefined) {
			address.searchParams.set(name, String(value));
		}
	}
	const response = await fetch(address, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` }, ...(signal === undefined ? {} : { signal }) });
	if (!response.ok) {
		const { error } = await response.json().catch(() => ({})) as { error?: { code?: string; message?: string } };
		throw new TurbocastError(ERROR_CODES.find((code) => code === error?.code) ?? 'transport_failed', error?.message ?? 'The recording could not be fetched.');
	}
	return response.blob();
};
