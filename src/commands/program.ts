/** The command line without its process: words to command, errors to exit codes. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { withWordsOf } from '../config/nearest.ts';
import { EXIT } from '../errors.ts';
import { report } from '../report.ts';
import { addAttachCommand } from './attach.ts';
import { addCniCommand } from './cni.ts';
import { addContainersCommand } from './containers.ts';
import { addDemoCommand } from './demo.ts';
import { addDetachCommand } from './detach.ts';
import { addDockerCommand } from './docker.ts';
import { addDownCommand } from './down.ts';
import { addExplainCommand } from './explain.ts';
import { addOciHookCommand } from './oci-hook.ts';
import { addPlanCommand } from './plan.ts';
import { addPlaygroundCommand } from './playground.ts';
import { addStatusCommand } from './status.ts';
import { addTunnelsCommand } from './tunnels.ts';
import { addUpCommand } from './up.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));

const AFTER_HELP = `Start with inlay demo, then inlay plan; inlay COMMAND --help has examples.
Exit codes: ${EXIT.done} done, ${EXIT.failed} failed, ${EXIT.usage} wrong usage, ${EXIT.notRunning} not running, ${EXIT.noPermission} no permission, ${EXIT.badConfiguration} bad configuration.`;

/** Does what these words say. An error is printed; the answer is the exit code. */
export async function runProgram(words: readonly string[]): Promise<number> {
  try {
    await program(words[0]).parseAsync(words, { from: 'user' });
    return EXIT.done;
  } catch (error) {
    return report(error);
  }
}

/** `name` is the command's, for what it suggests. */
function program(name: string | undefined): Command {
  const inlay = new Command('inlay')
    .description(
      'Stateless mesh networking for dense container hosts: overlay addresses carry the address of their VM.',
    )
    .version(version)
    .showSuggestionAfterError()
    .addHelpText('after', `\n${AFTER_HELP}`)
    .configureOutput({
      outputError: (text, write) => write(`${text.replace(/^error: /, 'inlay: ')}${suggestion(inlay, name, text)}`),
    })
    .exitOverride();
  addPlanCommand(inlay);
  addExplainCommand(inlay);
  addUpCommand(inlay);
  addDownCommand(inlay);
  addStatusCommand(inlay);
  addTunnelsCommand(inlay);
  addAttachCommand(inlay);
  addDetachCommand(inlay);
  addContainersCommand(inlay);
  addCniCommand(inlay);
  addDockerCommand(inlay);
  addOciHookCommand(inlay);
  addDemoCommand(inlay);
  addPlaygroundCommand(inlay);
  return inlay;
}

/** Where commander, which counts letters, has none: --underlay-mtu for --mtu. */
function suggestion(inlay: Command, name: string | undefined, text: string): string {
  const [, flag] = /^error: unknown option '--([\w-]+)'\n$/.exec(text) ?? [];
  const command = inlay.commands.find((each) => each.name() === name);
  const flags = command?.options.map(({ long }) => long?.slice(2) ?? '') ?? [];
  const [meant] = flag === undefined ? [] : withWordsOf(flag, flags);
  return meant === undefined ? '' : `(Did you mean --${meant}?)\n`;
}
