#!/usr/bin/env node
// The command. In a checkout it installs and builds first when that is needed; in an installed package it just runs.
import { ensureBuilt, ensureInstalled } from '../scripts/setup.mjs';

ensureInstalled();
ensureBuilt();
const { main } = await import('../dist/src/main.js');
await main(process.argv.slice(2));
