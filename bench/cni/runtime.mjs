/** A process on a VM that runs the CNI plugin as a container runtime does: it starts it, and waits for its end. */
import { spawnSync } from 'node:child_process';
import { obey } from '../density/commands.mjs';

/** As a runtime has it; what else is in this process's environment may slow Node down. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

/** ms until the plugin has ended. Throws what it says if it fails. */
function run({ plugin, config, command, id, netns }) {
  const env = { PATH, CNI_COMMAND: command, CNI_CONTAINERID: id, CNI_NETNS: netns, CNI_IFNAME: 'eth0', CNI_PATH: PATH };
  const [file, ...words] = plugin;
  const start = performance.now();
  const { status, stdout, stderr, error } = spawnSync(file, words, { env, input: config, encoding: 'utf8' });
  const ms = performance.now() - start;
  if (error || status !== 0) throw new Error(`${command} with ${plugin.join(' ')}: ${error ?? stdout + stderr}`);
  return ms;
}

obey({ run });
