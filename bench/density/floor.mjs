/**
 * What attaching costs without us: the fewest messages that leave the kernel in the same state, written before
 * the clock starts. The links' indexes are asked for, so that nothing has to be looked up.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import * as native from '../../dist/linux/native.js';
import { address, RTM_NEWADDR } from '../../dist/linux/netlink/address.js';
import { Writer } from '../../dist/linux/netlink/codec.js';
import { changeDevice } from '../../dist/linux/netlink/device-settings.js';
import { ipv4Bytes } from '../../dist/linux/netlink/ipv4.js';
import { IN6_ADDR_GEN_MODE_NONE, LOOPBACK, link, RTM_DELLINK, RTM_NEWLINK } from '../../dist/linux/netlink/link.js';
import { NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, putMessage, request } from '../../dist/linux/netlink/message.js';
import { NUD_PERMANENT, neighbour, RTM_NEWNEIGH } from '../../dist/linux/netlink/neighbour.js';
import { RTM_NEWROUTE, route } from '../../dist/linux/netlink/route.js';

const NEW = NLM_F_CREATE | NLM_F_EXCL;
const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;
const HEADER = 16;
const INSIDE = 2; // Index of the container's link.
const FIRST = 1_000_000; // Index of the first link of the host: far from those that the kernel gives.
const GROUP = 76;
/** 198.18.0.0/15 (RFC 2544) is no address of the mesh. */
const ADDRESSES = 0xc6_12_00_00;
const [MAIN, STATIC, ON_LINK, UNICAST] = [254, 4, 253, 1];

const answer = new Uint8Array(65_536);
const pointer = native.pointer(answer);
const answers = new DataView(answer.buffer);

const message = (type, flags, codec, body) => request(type, flags, 'floor', codec, body);
const newRoute = (body) => {
  const fixed = { family: native.AF_INET, table: MAIN, protocol: STATIC, type: UNICAST };
  return message(RTM_NEWROUTE, NEW, route, { ...fixed, ...body });
};

/** One datagram, of which the last message is acknowledged. */
function datagram(requests) {
  const writer = new Writer();
  for (const [i, { type, flags, put }] of requests.entries()) {
    const ack = i === requests.length - 1 ? NLM_F_ACK : 0;
    putMessage(writer, { type, flags: flags | NLM_F_REQUEST | ack, sequence: i + 1 }, put);
  }
  return { bytes: writer.bytes.slice(), last: requests.length };
}

function send(fd, { bytes, last }) {
  native.must(native.write(fd, bytes, bytes.length), 'write', 'to netlink');
  for (let done = false; !done; ) {
    const length = native.must(native.read(fd, pointer, answer.length), 'read', 'from netlink');
    for (let at = 0; at + HEADER <= length; at += (answers.getUint32(at, true) + 3) & ~3) {
      if (answers.getUint16(at + 4, true) !== NLMSG_ERROR) continue;
      const errno = answers.getInt32(at + HEADER, true);
      if (errno !== 0) throw new Error(`message ${answers.getUint32(at + 8, true)}: errno ${-errno}`);
      done ||= answers.getUint32(at + 8, true) === last;
    }
  }
}

const openNetlink = () => native.socket(native.AF_NETLINK, native.SOCK_RAW | native.SOCK_CLOEXEC, 0);

export class Floor {
  #host = openNetlink();
  #home = openSync('/proc/thread-self/ns/net', 'r');
  #mtu;
  #gateway;
  #next = 0;

  /** `gateway`: four bytes; an address of this VM. */
  constructor({ mtu, gateway }) {
    this.#mtu = mtu;
    this.#gateway = gateway;
  }

  /** Everything that attaching this namespace takes. */
  prepare(netNsFd) {
    const number = this.#next++;
    const index = FIRST + number;
    const name = `floor${number}`;
    const own = ipv4Bytes(ADDRESSES + number);
    const [hostMac, mac] = [6, 2].map((first) => Uint8Array.of(first, 0x46, 0, 0, number >> 8, number & 255));
    const shared = { mtu: this.#mtu, numTxQueues: 1, numRxQueues: 1 };
    const peer = { ...shared, index: INSIDE, name: 'eth0', address: mac, netNsFd };
    const info = { kind: 'veth', data: { peer } };
    const ipv4 = { forwarding: 1, rp_filter: 1, accept_redirects: 0, send_redirects: 0 };
    const entry = { family: native.AF_INET, state: NUD_PERMANENT };
    const gateway = this.#gateway;
    const ours = { family: native.AF_INET, prefixLength: 32, index: INSIDE, local: own, address: own };
    const noIpv6 = { addrGenMode: IN6_ADDR_GEN_MODE_NONE };
    const { family } = entry;
    return {
      index,
      netNsFd,
      ipv6: `/proc/sys/net/ipv6/conf/${name}/disable_ipv6`,
      veth: datagram([
        message(RTM_NEWLINK, NEW, link, { ...shared, index, name, address: hostMac, group: GROUP, info }),
      ]),
      host: datagram([
        changeDevice(index, { isUp: true, alias: `floor container ${number} eth0 4026531840 0 id`, ipv4, ...noIpv6 }),
        newRoute({ dst: own, dstLength: 32, oif: index, scope: ON_LINK, prefsrc: gateway }),
        message(RTM_NEWNEIGH, NLM_F_CREATE, neighbour, { ...entry, ifindex: index, dst: own, lladdr: mac }),
      ]),
      inside: datagram([
        changeDevice(LOOPBACK, { isUp: true }),
        changeDevice(INSIDE, noIpv6),
        changeDevice(INSIDE, { isUp: true }),
        message(RTM_NEWADDR, NEW, address, ours),
        newRoute({ dst: gateway, dstLength: 32, oif: INSIDE, scope: ON_LINK }),
        newRoute({ gateway, oif: INSIDE }),
        message(RTM_NEWNEIGH, NLM_F_CREATE, neighbour, {
          ...{ family, state: NUD_PERMANENT, ifindex: INSIDE, dst: gateway, lladdr: hostMac },
        }),
      ]),
    };
  }

  attach({ netNsFd, ipv6, veth, host, inside }) {
    send(this.#host, veth);
    // Less for the kernel to do from here on.
    const fd = openSync(ipv6, 'w');
    writeSync(fd, '1');
    closeSync(fd);
    send(this.#host, host);
    native.setns(netNsFd, native.CLONE_NEWNET);
    const socket = openNetlink();
    native.setns(this.#home, native.CLONE_NEWNET);
    send(socket, inside);
    native.close(socket);
  }

  /** What detaching takes. */
  prepareEnd({ index }) {
    return datagram([message(RTM_DELLINK, 0, link, { index })]);
  }

  detach(end) {
    send(this.#host, end);
  }

  /** Takes away what is left, all at once. */
  clear() {
    send(this.#host, datagram([message(RTM_DELLINK, 0, link, { group: GROUP })]));
  }
}
