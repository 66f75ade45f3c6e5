/** The command line without its process: words to command, errors to exit codes. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { EXIT, exitCodeOf, InlayError } from '../errors.ts';
import { addDemoCommand } from './demo.ts';
import { addDownCommand } from './down.ts';
import { addExplainCommand } from './explain.ts';
import { addPlanCommand } from './plan.ts';
import { addStatusCommand } from './status.ts';
import { addTunnelsCommand } from './tunnels.ts';
import { addUpCommand } from './up.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

/** Does what these words say. An error is printed; the answer is the exit code. */
export async function runProgram(words: readonly string[]): Promise<number> {
  try {
    await program().parseAsync(words, { from: 'user' });
    return EXIT.done;
  } catch (error) {
    return report(error);
  }
}

function program(): Command {
  const inlay = new Command('inlay')
    .description(
      'Stateless mesh networking for dense container hosts: overlay addresses carry the address of their VM.',
    )
    .version(version)
    .showSuggestionAfterError()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'inlay: ')) })
    .exitOverride();
  addPlanCommand(inlay);
  addExplainCommand(inlay);
  addUpCommand(inlay);
  addDownCommand(inlay);
  addStatusCommand(inlay);
  addTunnelsCommand(inlay);
  addDemoCommand(inlay);
  return inlay;
}

/** Prints the error, unless commander did, and answers the exit code. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  const hint = error instanceof InlayError && error.hint ? `hint: ${error.hint}\n` : '';
  process.stderr.write(`inlay: ${error instanceof Error ? error.message : error}\n${hint}`);
  return exitCodeOf(error);
}
