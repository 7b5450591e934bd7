// npm run bench -- NAME [ARGS]: one measurement of dist/bench/NAME.js; without a name, lists them.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, ensureInstalled, root, run } from './setup.mjs';

ensureInstalled();
ensureBuilt();
const [name, ...args] = process.argv.slice(2);
if (name === undefined) {
	const names = readdirSync(join(root, 'dist', 'bench')).filter((file) => file.endsWith('.bench.js'));
	console.log(`npm run bench -- NAME, where NAME is one of: ${names.map((file) => file.replace('.bench.js', '')).join(', ')}`);
} else {
	run(process.execPath, ['--enable-source-maps', join(root, 'dist', 'bench', `${name}.bench.js`), ...args]);
}
