/**
 * Looks at what is in the way of the fast path in this network namespace, which must be made for it: once for each
 * line of standard input, and whenever it is told of a change. Prints each look as a line of JSON. The argument has
 * settings as JSON.
 */
import { createInterface } from 'node:readline';
import { Obstacles } from '../../dist/dataplane/fast-path/obstacles/obstacles.js';
import { Monitor } from '../../dist/linux/netlink/monitor.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { RTNLGRP_IPV4_ROUTE } from '../../dist/linux/netlink/route.js';
import { findLink } from '../../dist/linux/netlink/rtnetlink.js';
import { NETLINK_ROUTE, openTransport } from '../../dist/linux/netlink/transport.js';
import { MainTable } from '../../dist/machine/table.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const device = 'inlay0';
const config = { device, encapsulation: 'gre', dataplane: 'wasm', pathMtuDiscovery: true };
Object.assign(config, JSON.parse(process.argv[2] ?? '{}'));
const mapping = new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'));
const plan = { device, local: parseAddress('192.168.16.32'), mappings: [mapping], mtu: 1476 };

const netlink = Netlink.open();
const table = new MainTable(netlink);
table.load([mapping.overlay], [mapping.sliceOf(plan.local)]);
const machine = { netlink, table, links: new Map([[device, findLink(netlink, device)?.index]]) };
const obstacles = new Obstacles({
  ...{ config, machine },
  ...(config.receives && { receives: config.receives }),
  plan: () => plan,
  containers: () => ['inl16A'],
  onChange: () => print(true),
});
const monitor = new Monitor(openTransport(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE]), {
  onMessages: (messages) => {
    for (const message of messages) {
      table.hear(message);
      obstacles.concerns(message);
    }
  },
  onOverrun: () => obstacles.reload(),
  onFailure: () => process.exit(1),
});

function print(isHeard) {
  const begin = performance.now();
  const found = obstacles.look();
  const ms = performance.now() - begin;
  process.stdout.write(`${JSON.stringify({ ...found, isHeard, ms })}\n`);
}

createInterface({ input: process.stdin })
  .on('line', () => print(false))
  .on('close', () => {
    monitor.close();
    obstacles.close();
  });
