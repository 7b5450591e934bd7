/** The page, the SDK and the shared protocol, out of `dist` as the compiler left them: browsers import them without a bundler. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize, sep } from 'node:path';

const MIME: { readonly [extension: string]: string } = {
	'.css': 'text/css; charset=utf-8',
	'.html': 'text/html; charset=utf-8',
	'.js': 'text/javascript; charset=utf-8',
	'.map': 'application/json; charset=utf-8',
	'.svg': 'image/svg+xml',
};

/** Folders of `dist` that anyone may read. */
const OPEN_FOLDERS = [join('client', sep), join('src', 'protocol', sep)];
/** Addresses that people and browsers ask for by themselves. */
const ALIASES: { readonly [path: string]: string } = {
	'/': '/client/demo/index.html',
	'/favicon.ico': '/client/demo/favicon.svg',
	'/favicon.svg': '/client/demo/favicon.svg',
};

export type StaticFile = { readonly body: Buffer; readonly contentType: string; readonly etag: string };

/** Reads what stands at a URL path below the folder `dist`, or gives `undefined`. Never leaves the open folders. */
export const readStaticFile = async (dist: string, urlPath: string): Promise<StaticFile | undefined> => {
	let path: string;
	try {
		path = decodeURIComponent(ALIASES[urlPath] ?? urlPath);
	} catch {
		return undefined;
	}
	const contentType = MIME[extname(path)];
	const relative = normalize(path).replace(/^[/\\]+/u, '');
	if (contentType === undefined || path.includes('\0') || path.includes('\\') || !OPEN_FOLDERS.some((folder) => relative.startsWith(folder))) {
		return undefined;
	}
	try {
		const body = await readFile(join(dist, relative));
		return { body, contentType, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` };
	} catch {
		return undefined;
	}
};
