/** README says what the code does: the table of settings, and every command. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { settingsTable } from '../src/config/settings.ts';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

test('README has the table of settings', () => {
  expect(readme).toContain(settingsTable());
});

test.each(['plan', 'explain', 'up', 'down', 'status', 'tunnels', 'demo'])('README explains %s', (command) => {
  expect(readme).toContain(`| \`${command}`);
});
