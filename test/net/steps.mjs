/**
 * Stops a command of Inlay at one of its steps: node --import steps.mjs, with INLAY_STEP as NUMBER or NUMBER:COMMAND in the environment. Steps are what changes
 * something or tells of it: a netlink message, a change of the network namespace, a file that is written. Before the step with this number, the first is 0, the
 * process kills itself, or a shell runs the command. With `NUMBER:!` the message of that step asks for a kind of link that no kernel knows.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { register, syncBuiltinESMExports } from 'node:module';
import process from 'node:process';

const [, wanted, command] = /^(\d+)(?::(.+))?$/s.exec(process.env.INLAY_STEP ?? '') ?? [];
let step = 0;

/** What is done before each step. */
function arrive(bytes) {
  if (step++ !== Number(wanted)) return;
  if (command === undefined) process.kill(process.pid, 'SIGKILL');
  else if (command === '!') replace(bytes, 'veth', 'htev');
  else spawnSync('sh', ['-c', command], { stdio: ['ignore', 'ignore', 'inherit'] });
}

function replace(bytes, from, to) {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = all.indexOf(from);
  if (at >= 0) all.write(to, at);
}

globalThis.inlayStep = arrive;
const { writeFileSync } = fs;
fs.writeFileSync = (...words) => {
  arrive();
  return writeFileSync(...words);
};
syncBuiltinESMExports();

// Node 20 has hooks in a thread of their own: what they change is the text of the module.
const hooks = `export async function load(url, context, next) {
  const found = await next(url, context);
  if (!url.endsWith('/dist/linux/native.js')) return found;
  const text = String(found.source)
    .replace('export const write =', 'const plainWrite =')
    .replace('export const ifNameToIndex =', 'const plainIndex =')
    .replace('export const setns =', 'const plainSetns =');
  return { ...found, source: text + \`
export const write = (fd, bytes, count) => { globalThis.inlayStep(bytes); return plainWrite(fd, bytes, count); };
export const ifNameToIndex = (...words) => { globalThis.inlayStep(); return plainIndex(...words); };
export const setns = (...words) => { globalThis.inlayStep(); return plainSetns(...words); };\` };
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
