/** How much memory a graphics card has left. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const TIMEOUT_MS = 10_000;
const MEBIBYTE = 1024 * 1024;

export type AskCard = (program: string, words: readonly string[]) => Promise<string>;

const ask: AskCard = async (program, words) => (await promisify(execFile)(program, words, { timeout: TIMEOUT_MS })).stdout;

/** Free bytes of the card that CUDA takes first, asked of NVIDIA's own tool, which comes with the driver; `undefined` where nobody tells. */
export const freeCardBytes = async (environment: { readonly [name: string]: string | undefined } = process.env, askCard = ask): Promise<number | undefined> => {
	const [card = ''] = (environment['CUDA_VISIBLE_DEVICES'] ?? '').split(',');
	try {
		const answer = await askCard('nvidia-smi', ['--query-gpu=memory.free', '--format=csv,noheader,nounits', '-i', card.trim() === '' ? '0' : card.trim()]);
		const [line = ''] = answer.trim().split('\n');
		return /^\d+$/u.test(line.trim()) ? Number(line) * MEBIBYTE : undefined;
	} catch {
		return undefined;
	}
};
