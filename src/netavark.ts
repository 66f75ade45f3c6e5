#!/usr/bin/env node
/**
 * inlay-netavark: the process of netavark's network plugin. podman starts one for each container, so it loads
 * only what it needs. It answers on standard output, errors too.
 */
import { readFileSync } from 'node:fs';
import { EXIT, InlayError } from './errors.ts';
import { installationError, requireNode } from './installation.ts';

try {
  requireNode(process.versions.node);
  const { readObject } = await import('./containers/standard-input.ts');
  const { info, runNetavark } = await import('./containers/netavark.ts');
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  const words = process.argv.slice(2);
  const answer = words[0] === 'info' ? info(version) : runNetavark(words, readObject('the request'));
  if (answer) process.stdout.write(`${JSON.stringify(answer)}\n`);
} catch (error) {
  const found = installationError(error) ?? error;
  const hint = found instanceof InlayError && found.hint ? ` (${found.hint})` : '';
  const message = `${found instanceof Error ? found.message : found}${hint}`;
  process.stdout.write(`${JSON.stringify({ error: message })}\n`);
  process.exitCode = EXIT.failed;
}
