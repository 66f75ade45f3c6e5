#!/usr/bin/env node
/** The command line: argv to command, errors to exit codes. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { addDemoCommand } from './commands/demo.ts';
import { addDownCommand } from './commands/down.ts';
import { addExplainCommand } from './commands/explain.ts';
import { addPlanCommand } from './commands/plan.ts';
import { addStatusCommand } from './commands/status.ts';
import { addTunnelsCommand } from './commands/tunnels.ts';
import { addUpCommand } from './commands/up.ts';
import { EXIT, errorCode, InlayError } from './errors.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

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

const program = new Command('inlay')
  .description('Stateless mesh networking for dense container hosts: overlay addresses carry the address of their VM.')
  .version(version)
  .showSuggestionAfterError()
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'inlay: ')) })
  .exitOverride();
addPlanCommand(program);
addExplainCommand(program);
addUpCommand(program);
addDownCommand(program);
addStatusCommand(program);
addTunnelsCommand(program);
addDemoCommand(program);

try {
  await program.parseAsync();
  process.exitCode = EXIT.done;
} catch (error) {
  process.exitCode = exitCode(error);
}

/** Prints the error, unless commander did, and answers the exit code. */
function exitCode(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  if (error instanceof InlayError) {
    process.stderr.write(`inlay: ${error.message}\n${error.hint ? `hint: ${error.hint}\n` : ''}`);
    return error.exitCode;
  }
  process.stderr.write(`inlay: ${error instanceof Error ? error.message : error}\n`);
  return EXIT.failed;
}
