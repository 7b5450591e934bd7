/** The version in package.json, read once. */
import { readFileSync } from 'node:fs';

const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };

export const TURBOCAST_VERSION = manifest.version;
