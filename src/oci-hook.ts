/** The process of an OCI hook. A runtime starts one for each container, so it loads only what it needs. */
import { parseArgs } from 'node:util';
import { DEFAULT_RUN_DIR } from './config/run-dir.ts';
import { InlayError } from './errors.ts';
import { requireNode } from './installation.ts';
import { report } from './report.ts';

/** Throws InlayError. */
function wordsOf(args: string[]): { action: string; runDir: string } {
  try {
    const options = { 'run-dir': { type: 'string', default: DEFAULT_RUN_DIR } } as const;
    const { positionals, values } = parseArgs({ args, options, allowPositionals: true });
    return { action: positionals.join(' '), runDir: values['run-dir'] };
  } catch (cause) {
    throw new InlayError('ERR_USAGE', (cause as Error).message, { hint: 'inlay oci-hook --help', cause });
  }
}

try {
  requireNode(process.versions.node);
  const { action, runDir } = wordsOf(process.argv.slice(2));
  const { runHook } = await import('./containers/oci/hook.ts');
  runHook(action, runDir);
} catch (error) {
  process.exitCode = report(error);
}
