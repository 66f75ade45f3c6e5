/**
 * Writes the table of a barrier in the network namespace that it runs in: once as text by nft(8), once by our own messages. Standard input has what the rules
 * follow from, as JSON; standard output gets what the kernel has then, each time.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { OwnTables, tableOf } from '../../dist/linux/netfilter/own-tables.js';
import { commentOf } from '../../dist/linux/netlink/nf-tables.js';
import { barrierChains, barrierText, expressionsOf } from '../../dist/machine/barrier/rules.js';
import { parseAccess } from '../../dist/mesh/access.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const { mappings, local, access, hasFib, device, uplinks, ...rest } = JSON.parse(readFileSync(0, 'utf8'));
/** Makes a device, and says what it is. */
function deviceOf(name) {
  execFileSync('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', `${name.slice(0, 13)}.p`]);
  const [{ ifindex }] = JSON.parse(execFileSync('ip', ['-j', 'link', 'show', 'dev', name], { encoding: 'utf8' }));
  return { name, index: ifindex };
}

const facts = {
  ...rest,
  device: deviceOf(device),
  uplinks: uplinks.map(deviceOf),
  local: parseAddress(local),
  mappings: mappings.map(([overlay, underlay]) => new Mapping(parsePrefix(overlay), parsePrefix(underlay))),
  access: access.map(parseAccess),
};
const table = tableOf(device);
const chains = barrierChains(facts, hasFib);
const names = chains.map(({ name }) => name);
const tables = new OwnTables();
const plain = (_, value) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value);
const kernels = () =>
  JSON.parse(
    JSON.stringify(
      tables.read(table, names).map(({ name, hook, rules }) => ({
        ...{ name, hook },
        rules: rules.map(({ expressions, userdata }) => ({ expressions, userdata })),
      })),
      plain,
    ),
  );
const listed = () => execFileSync('nft', ['list', 'table', 'ip', table], { encoding: 'utf8' });

execFileSync('nft', ['-f', '-'], { input: barrierText(table, chains).join('\n') });
const [byText, textListed] = [kernels(), listed()];
tables.replace(
  table,
  chains.map(({ name, hook, rules }) => ({
    name,
    ...(hook && { hook: { number: hook.number, priority: hook.priority } }),
    rules: rules.map((rule) => ({
      expressions: expressionsOf(rule),
      ...(rule.drops && { userdata: commentOf(rule.drops) }),
    })),
  })),
);
process.stdout.write(JSON.stringify({ byText, textListed, byUs: kernels(), usListed: listed() }));
tables.remove(table);
for (const { name } of [facts.device, ...facts.uplinks]) execFileSync('ip', ['link', 'del', name]);
tables.close();
