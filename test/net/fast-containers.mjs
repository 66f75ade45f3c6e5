/**
 * Follows the containers of VM 192.168.16.32 in the network namespace that it runs in, as a daemon does, with programs that take
 * nothing. Each line of standard input is a question as JSON, each line of standard output its answer.
 */
import { createInterface } from 'node:readline';
import { FastContainers } from '../../dist/dataplane/fast-path/containers/containers.js';
import { FastPathState } from '../../dist/dataplane/fast-path/state.js';
import { exit, set } from '../../dist/linux/bpf/assembler.js';
import { loadProgram, programId } from '../../dist/linux/bpf/program.js';
import { bpf } from '../../dist/linux/bpf/syscall.js';
import * as native from '../../dist/linux/native.js';
import { filtersAt, isOurs } from '../../dist/linux/netlink/filters.js';
import { Monitor } from '../../dist/linux/netlink/monitor.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { RTNLGRP_IPV4_ROUTE } from '../../dist/linux/netlink/route.js';
import { NETLINK_ROUTE, openTransport } from '../../dist/linux/netlink/transport.js';
import { createLog } from '../../dist/log.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const [overlay = '10.0.0.0/8', underlay = '192.168.0.0/16', uplink] = process.argv.slice(2);
const TC_ACT_UNSPEC = -1;
const BPF_MAP_LOOKUP_ELEM = 1;
const SLOT_SIZE = 16;

const mappings = [new Mapping(parsePrefix(overlay), parsePrefix(underlay))];
const local = parseAddress('192.168.16.32');
const slice = Number(mappings[0].sliceOf(local).bits);
const netlink = Netlink.open();
const state = new FastPathState(mappings, local);
const program = loadProgram([set(0, TC_ACT_UNSPEC), exit], 'of nothing');
const begin = performance.now();
const containers = new FastContainers({
  ...{ netlink, state, program, mappings, local, log: createLog('info') },
  overlay: () => undefined,
  uplinks: () => (uplink ? [Number(uplink)] : []),
});
const read = performance.now() - begin;
const monitor = new Monitor(openTransport(NETLINK_ROUTE, [RTNLGRP_IPV4_ROUTE]), {
  onMessages: (messages) => {
    for (const message of messages) containers.hear(message);
  },
  onOverrun: () => containers.reload(),
  onFailure: (error) => {
    throw error;
  },
});
let lookTime = 0;
const look = () => {
  const start = performance.now();
  containers.look();
  lookTime = Math.max(lookTime, performance.now() - start);
};
let timer = setInterval(look, 100);

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');

/** The slot of an index, as the programs see it; undefined if it is empty. */
function slotAt(index) {
  const { bytes, view, pointed } = native.structure(32, { 8: new Uint8Array(4), 16: new Uint8Array(SLOT_SIZE) });
  view.setUint32(0, state.fds.slots, true);
  new DataView(bytes.buffer, pointed[8].byteOffset).setUint32(0, index, true);
  if (bpf(BPF_MAP_LOOKUP_ELEM, { bytes, view }) < 0) throw new Error('no such slot');
  const found = pointed[16];
  const link = new DataView(bytes.buffer, found.byteOffset).getUint32(0, true);
  return link === 0 ? undefined : { link, mac: hex(found.subarray(4, 10)), hostMac: hex(found.subarray(10, 16)) };
}

const verbs = {
  slots() {
    const found = {};
    for (let index = 0; index < 2 ** mappings[0].containerBits; index++) {
      const slot = slotAt(index);
      const address = slice + index;
      if (slot) found[[24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.')] = slot;
    }
    return found;
  },
  status: () => ({
    count: containers.count,
    program: programId(program),
    isFilled: containers.isFilled,
    read,
    lookTime,
  }),
  /** As `status`, after a look, with the slots of some indexes and the programs at some devices. */
  look({ indexes, links }) {
    look();
    const programAt = (link) => filtersAt(netlink, link, 'ingress').find(isOurs)?.options?.id ?? null;
    return { ...verbs.status(), slots: indexes.map((index) => slotAt(index) ?? null), programs: links.map(programAt) };
  },
  /** From now on nothing is looked at but for a notification. */
  still: () => clearInterval(timer),
  restless() {
    timer = setInterval(look, 100);
  },
  end() {
    clearInterval(timer);
    containers.close();
    monitor.close();
    state.close();
    netlink.close();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { verb, value } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(verbs[verb](value) ?? null)}\n`);
  if (verb === 'end') break;
}
process.exit();
