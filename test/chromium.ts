/** Chromium as PATH has it, for suites that need a browser. */
import { spawnSync } from 'node:child_process';
import { type Browser, chromium } from 'playwright-core';

/** The path of the Chromium that a shell would run; undefined if there is none. */
export function findChromium(folders = process.env['PATH'] ?? ''): string | undefined {
  const { stdout } = spawnSync('/bin/sh', ['-c', 'command -v chromium'], { env: { PATH: folders }, encoding: 'utf8' });
  return stdout.trim() || undefined;
}

/** Why there is no browser, for `skip`; undefined if there is one. */
export function missingChromium(): string | undefined {
  return findChromium() === undefined ? 'there is no Chromium in PATH (apt-get install chromium)' : undefined;
}

/** Starts it. Rejects if there is none. */
export async function launchChromium(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) throw new Error(missingChromium());
  // Root has no user namespace to put the browser into; it shows nothing but our pages.
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({ executablePath, args });
}
