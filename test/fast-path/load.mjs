/**
 * Loads both programs of the fast path: node load.mjs CONFIGS, a JSON list as in configs.ts. Prints one JSON document: the capabilities
 * that it has, as the kernel tells them, and what became of each configuration.
 */
import { readFileSync } from 'node:fs';
import { ProgramTwin } from './twin.mjs';

function load(config) {
  try {
    new ProgramTwin(config).close();
    return 'loaded';
  } catch (error) {
    return String(error);
  }
}

const [, capabilities] = /^CapEff:\s*(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
const configs = JSON.parse(process.argv[2]);
const found = Object.fromEntries(configs.map(({ name, config }) => [name, load(config)]));
process.stdout.write(JSON.stringify({ capabilities, found }));
