#!/usr/bin/env node
/** The process of the command line: what has to be there before anything is loaded. It imports no package: one may be missing. */
import { EXIT, errorCode } from './errors.ts';
import { requireNode } from './installation.ts';
import { report } from './report.ts';

// A reader that has gone, as in `inlay plan | head -1`, or a full disk: no stack trace either.
process.stdout.on('error', (error) => {
  if (errorCode(error) !== 'EPIPE') process.stderr.write(`inlay: ${error.message}\n`);
  process.exit(EXIT.failed);
});

// Inlay also starts in a directory that was removed meanwhile. Node's threads look for it, and would fail.
try {
  process.cwd();
} catch {
  process.chdir('/');
}

try {
  requireNode(process.versions.node);
  const { runProgram } = await import('./commands/program.ts');
  process.exitCode = await runProgram(process.argv.slice(2));
} catch (error) {
  process.exitCode = report(error);
}
