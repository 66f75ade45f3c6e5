/**
 * Looks at the rule sets of this network namespace, which must be made for it. Before the second look the
 * rules count packets, and before the third they change. Prints as JSON how many remarks each look has, and
 * how many of them the look before has made.
 */
import { execFileSync } from 'node:child_process';
import { FirewallLookOut } from '../../dist/machine/remarks/firewall.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const vantage = {
  plan: {
    local: parseAddress('192.168.16.32'),
    mappings: [new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'))],
  },
  outer: { protocol: 47 },
  overlay: { name: 'inlay0', index: 7 },
  underlay: { device: { name: 'eth0', index: 2 } },
};

const lookOut = new FirewallLookOut();
const looks = [];
let before = [];
for (const command of [
  'ip link set lo up; iptables-legacy -P FORWARD DROP',
  'ping -n -q -c 1 -W 1 127.0.0.1',
  'iptables-legacy -A INPUT -p gre -j DROP',
]) {
  execFileSync('sh', ['-ec', command]);
  const found = await lookOut.look(vantage);
  looks.push({ remarks: found.length, known: found.filter((each) => before.includes(each)).length });
  before = found;
}
process.stdout.write(JSON.stringify(looks));
