/**
 * Stops a process of Inlay at one of its steps: node --import steps.mjs, with INLAY_STEP as NUMBER or NUMBER:COMMAND in the environment. Steps are what the
 * kernel is asked for: a netlink message, a change of the network namespace, the number of a link, a file that is written. Before the step with this number, of
 * which the first is 0, the process kills itself, or a shell runs the command. With NUMBER:! the message of that step asks for a kind of link that no kernel has.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import koffi from 'koffi';

const STEPS = /^[\w ]+ (write|setns|if_nametoindex)\(/;
const [, wanted, command] = /^(\d+)(?::(.+))?$/s.exec(process.env.INLAY_STEP ?? '') ?? [];
let step = 0;

/** Before each step; `bytes` is the message that is to be written. */
function arrive(bytes) {
  if (step++ !== Number(wanted)) return;
  if (command === undefined) process.kill(process.pid, 'SIGKILL');
  else if (command === '!') replace(bytes, 'veth', 'htev');
  else spawnSync('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'inherit'] });
}

function replace({ buffer, byteOffset, byteLength }, from, to) {
  const all = Buffer.from(buffer, byteOffset, byteLength);
  all.write(to, all.indexOf(from));
}

const before =
  (work) =>
  (...words) => {
    arrive(words.find((word) => ArrayBuffer.isView(word)));
    return work(...words);
  };

const { load } = koffi;
koffi.load = (...words) => {
  const library = load(...words);
  const func = (signature) => {
    const found = library.func(signature);
    return STEPS.test(signature) ? before(found) : found;
  };
  return { func };
};
fs.writeFileSync = before(fs.writeFileSync);
syncBuiltinESMExports();
