/**
 * The fast path's outbound program at a device of the VM 192.168.16.32. Each line of standard input is the next hop as JSON, null
 * if the kernel is to look it up; each line of standard output says that it is set.
 */
import { createInterface } from 'node:readline';
import { outbound } from '../../dist/dataplane/fast-path/programs/programs.js';
import { FastPathState } from '../../dist/dataplane/fast-path/state.js';
import { assemble } from '../../dist/linux/bpf/assembler.js';
import { loadProgram } from '../../dist/linux/bpf/program.js';
import { attachTcx } from '../../dist/linux/bpf/tcx.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { findLink } from '../../dist/linux/netlink/rtnetlink.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const [device, uplink, container, vm] = process.argv.slice(2);
const number = (text) => Number(parseAddress(text).bits);
const netlink = Netlink.open();
const index = (name) => findLink(netlink, name).index;
const mappings = [new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'))];
const local = parseAddress('192.168.16.32');
const state = new FastPathState(mappings, local);
const options = { mappings, local, encapsulation: 'gre', receives: ['gre'] };
const headers = { key: undefined, ttl: 64, dscp: 'uniform', ecn: 'normal', clampMss: false };
const program = loadProgram(assemble(outbound({ ...options, ...headers }, state.fds)), 'outbound');
const mac = new Uint8Array(6);
state.setContainer(number(container), { link: index(device), mac, hostMac: mac });
state.hear(number(vm));
attachTcx(program, index(device), 'ingress', `at ${device}`);

createInterface({ input: process.stdin }).on('line', (line) => {
  const nextHop = JSON.parse(line) ?? undefined;
  state.set({ enabled: true, uplink: index(uplink), limit: 1476, nextHop });
  process.stdout.write(`${JSON.stringify(state.counts().outbound.packets)}\n`);
});
process.stdout.write('ready\n');
