/** An error for the operator: printed, and made an exit code. Imports no package: one may be what is missing. */
import { EXIT, errorCode, exitCodeOf, InlayError } from './errors.ts';
import { installationError } from './installation.ts';

/** Prints the error, unless commander did, and answers the exit code. */
export function report(error: unknown): number {
  if (errorCode(error)?.startsWith('commander.'))
    return (error as { exitCode: number }).exitCode === 0 ? EXIT.done : EXIT.usage;
  const found = installationError(error) ?? error;
  const hint = found instanceof InlayError && found.hint ? `hint: ${found.hint}\n` : '';
  process.stderr.write(`inlay: ${found instanceof Error ? found.message : found}\n${hint}`);
  return exitCodeOf(found);
}
