import { ensureBuilt, ensureInstalled, root, run } from './setup.mjs';
import { join } from 'node:path';

ensureInstalled();
ensureBuilt();
run(process.execPath, [join(root, 'node_modules', 'eslint', 'bin', 'eslint.js'), '--max-warnings=0', '.']);
