#!/usr/bin/env node
/** The process of the command line. */
import { runProgram } from './commands/program.ts';
import { EXIT, errorCode } from './errors.ts';

// A reader that has gone, as in `inlay plan | head -1`, or a full disk: no stack trace either.
process.stdout.on('error', (error) => {
  if (errorCode(error) !== 'EPIPE') process.stderr.write(`inlay: ${error.message}\n`);
  process.exit(EXIT.failed);
});

// A directory that was removed meanwhile is no reason not to start: Node's threads look for it.
try {
  process.cwd();
} catch {
  process.chdir('/');
}

process.exitCode = await runProgram(process.argv.slice(2));
