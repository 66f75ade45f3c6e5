/** What spoofers send: a VM that was taken over writes packets by itself, without its core. The network does not look; the receiving VM has to. */
import { abi } from 'inlay/core';
import { addressOf, MOST_VMS, mix, overlayOf } from './mesh.mjs';
import { FORGED_GRE, FORGED_ICMP, FORGED_UDP, putHeader } from './network.mjs';
import { swapped } from './traffic.mjs';

const GRE_IPV4 = 0x0008 << 16;
const GRE_VERSION_1 = 0x0100;
const [INNER_LENGTH, FOREIGN] = [64, 0x0a630101];

/** What is wrong with each kind of packet, and what has to become of it. */
const LIES = [
  abi.DROP_SPOOFED_SOURCE,
  abi.DROP_FOREIGN_DESTINATION,
  abi.DROP_FOREIGN_UNDERLAY,
  abi.DROP_GRE_VERSION,
  abi.DROP_NESTED_GRE,
  abi.DROP_RESERVED_ADDRESS,
];

export class Forger {
  #words = new Int32Array(64);

  constructor(mesh, network) {
    Object.assign(this, { mesh, network });
  }

  /** VM `vm`, a spoofer, sends one forged packet and, to somebody else, a forged ICMP message. */
  send(vm, round) {
    const { mesh, network } = this;
    if (mesh.vms < 2) return;
    const h = mesh.hash(20, vm, round);
    const victim = (vm + 1 + (h % (mesh.vms - 1))) % mesh.vms;
    const lie = LIES[mix(h) % LIES.length];
    const isUdp = (h & 0x10000) !== 0 && lie !== abi.DROP_FOREIGN_UNDERLAY;
    const w = this.#words;
    const gre = isUdp ? 0 : 5;
    if (!isUdp) {
      const from = lie === abi.DROP_FOREIGN_UNDERLAY ? FOREIGN : addressOf(vm);
      putHeader(w, 0, swapped(from), swapped(addressOf(victim)), 47, 24 + INNER_LENGTH, 0x40);
    }
    w[gre] = GRE_IPV4 | (lie === abi.DROP_GRE_VERSION ? GRE_VERSION_1 : 0);
    this.#putInner(gre + 1, lie, vm, victim, h);
    network.send(vm, addressOf(victim), isUdp ? FORGED_UDP : FORGED_GRE, lie, w, 0, 4 * (gre + 1) + INNER_LENGTH);
    this.#sendIcmp(victim, h);
  }

  #putInner(at, lie, vm, victim, h) {
    const w = this.#words;
    const somebody = lie === abi.DROP_SPOOFED_SOURCE ? (vm + 1 + (h % 5000)) % MOST_VMS : vm;
    const to = lie === abi.DROP_FOREIGN_DESTINATION ? vm : victim;
    const index = lie === abi.DROP_RESERVED_ADDRESS ? 255 : 2;
    const protocol = lie === abi.DROP_NESTED_GRE ? 47 : 17;
    putHeader(w, at, swapped(overlayOf(somebody, 2)), swapped(overlayOf(to, index)), protocol, INNER_LENGTH, 0x40);
    w.fill(0, at + 5, at + INNER_LENGTH / 4);
  }

  /** Says that packets to some VM have to be smaller: quoting one that another VM had sent, since what the victim sends cannot be seen. */
  #sendIcmp(victim, h) {
    const { network } = this;
    const [from, to] = [(victim + 1) % MOST_VMS, h % MOST_VMS];
    putHeader(network.quoted, 7, swapped(addressOf(from)), swapped(addressOf(to)), 47, 1400, 0x40);
    network.quoted.fill(0, 12, 15);
    network.quoted[12] = GRE_IPV4;
    network.sendIcmp(victim, FORGED_ICMP, 4, 576, 32);
  }
}
