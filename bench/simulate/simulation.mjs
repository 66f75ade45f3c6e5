/**
 * A mesh far larger than this machine, on one core: VMs take turns. In its turn a VM is put into the core, gets what has arrived for it, and lets its containers
 * send; then the next one takes its place. What it sends arrives in the next round at the earliest. The data path is the daemon's own
 * (src/dataplane/wasm/forwarder.ts), between devices in memory.
 */
import { abi } from 'inlay/core';
import { Forwarder } from '../../dist/dataplane/wasm/forwarder.js';
import { Audit } from './audit.mjs';
import { asksForReply, Containers } from './containers.mjs';
import { Failures, SWAP } from './failures.mjs';
import { Forger } from './forge.mjs';
import { Judge } from './judge.mjs';
import { Ledger } from './ledger.mjs';
import { addressOf, MAPPING, Mesh, mix, overlayOf } from './mesh.mjs';
import { FORGED_ICMP, GRE, GRE_UDP, ICMP, Network } from './network.mjs';
import { checkSums } from './sums.mjs';
import { Swap } from './swap.mjs';
import { Traffic } from './traffic.mjs';
import { placeOf, Underlay } from './underlay.mjs';

/** Packets that all VMs send in one round, at most, unless there are more VMs: they wait in memory until the next. */
const ROUND_PACKETS = 1 << 18;
/** Rounds of a run, at least, if there are packets for so many. */
const ROUNDS = 40;
/** ms without packets after which a tunnel is closed, and from one look for such to the next. */
const IDLE = 60_000;
const SWEEP = 600_000;
/** Turns from one look at what they leave behind to the next. */
const CHECK = 4096;

/** Two sums over everything that happens, in order: equal for equal runs. */
class Digest {
  #a = 1;
  #b = 2;

  add(a, b) {
    this.#a = (Math.imul(this.#a ^ a, 0x01000193) + b) | 0;
    this.#b = Math.imul(this.#b + (this.#b << 5) + b, 0x85ebca6b) ^ a;
  }

  get text() {
    return [this.#a, mix(this.#b)].map((n) => (n >>> 0).toString(16).padStart(8, '0')).join('');
  }
}

export class Simulation {
  failures = new Failures();
  digest = new Digest();
  /** Turns after which the core was seen to be empty. */
  checked = 0;
  turns = 0;

  /** `core` is used for nothing else. Options: vms, packets, containers, seed; loss, reorder, copy, vanish, spoofers, narrow in per cent. */
  constructor(core, options) {
    const { vms, packets } = options;
    const most = Math.floor(Math.min(ROUND_PACKETS, packets / ROUNDS) / vms);
    const batch = Math.min(Math.max(most, 1), abi.BATCH_SIZE);
    this.options = options;
    this.core = core;
    this.batch = batch;
    this.rounds = Math.ceil(packets / (vms * batch));
    const part = (name) => options[name] / 100;
    this.mesh = new Mesh({
      ...{ ...options, rounds: this.rounds },
      ...{ vanish: part('vanish'), spoofers: part('spoofers'), narrow: part('narrow') },
    });
    this.traffic = new Traffic(this.mesh);
    this.ledger = new Ledger(packets, this.traffic, this.failures);
    this.network = new Network(this.mesh, this.ledger, options);
    this.forger = new Forger(this.mesh, this.network);
    this.audit = new Audit(core, vms, this.failures);
    this.containers = new Containers(core, { ...this, packets, vms });
    this.underlay = new Underlay(core, this.network, this.ledger, this.containers.numbers);
    this.icmp = new Underlay(core, this.network, this.ledger, this.containers.numbers);
    this.swap = new Swap(core, {
      vms,
      sources: options.containers + 2,
      firstSourceOf: (vm) => overlayOf(vm, 0),
      configOf: (vm) => ({
        local: addressOf(vm),
        encapsulation: this.mesh.encapsulationOf(vm),
        mtu: this.mesh.mtuOf(vm),
        mappings: [MAPPING],
      }),
    });
    this.judge = new Judge(this);
    this.forwarder = new Forwarder(core, this.containers, this.underlay, {
      onDropped: () => {},
      onLearnt: () => {},
      onTunnels: (change, all) => {
        if (change === 'opened') this.swap.opened(all);
        this.audit.seeTunnels(this.swap.current, change, all.length);
      },
    });
    this.sweepRounds = Math.ceil(SWEEP / this.mesh.roundTime);
    this.words = new Int32Array(core.memory);
    this.vm = 0;
    this.now = 0;
  }

  /** All packets are sent, and come to their ends. `onRound` is told how far that is, 0..1. */
  run(onRound = () => {}) {
    for (let round = 0; ; round++) {
      const isSending = this.ledger.sent < this.options.packets;
      if (!isSending && this.network.waiting === 0) break;
      for (let vm = 0; vm < this.options.vms; vm++) this.#turn(vm, round, isSending);
      this.network.endRound();
      onRound(Math.min(round / this.rounds, 1));
    }
  }

  /** Looks at each VM for the last time. */
  finish() {
    for (let vm = 0; vm < this.options.vms; vm++) if (this.swap.has(vm)) this.#endLife(vm);
    this.#check();
    checkSums(this);
  }

  #turn(vm, round, isSending) {
    if (!this.mesh.isThere(vm, round)) {
      if (this.swap.has(vm)) {
        this.#endLife(vm);
        this.swap.forget(vm);
        this.containers.lives[vm]++;
      }
      this.network.discard(vm);
      return;
    }
    this.#begin(vm, round);
    this.network.receive(vm, this.#arrive);
    this.#decapsulate();
    this.#learn();
    if (isSending) {
      this.#encapsulate();
      if (this.mesh.isSpoofer(vm)) this.forger.send(vm, round);
    }
    if ((round + vm) % this.sweepRounds === this.sweepRounds - 1) this.forwarder.expire(this.now - IDLE);
    if (++this.turns % CHECK === 0) this.#check();
  }

  #begin(vm, round) {
    this.swap.in(vm);
    this.vm = vm;
    this.now = this.mesh.clock(vm, round);
    this.containers.vm = vm;
    this.underlay.vm = vm;
    this.underlay.kind = this.mesh.encapsulationOf(vm) === 'gre' ? GRE : GRE_UDP;
  }

  #arrive = (kind, number, sender, words, place, length) => {
    const isIcmp = kind >= ICMP;
    // ICMP messages come last: both devices put packets into the same slots.
    if (isIcmp) this.#decapsulate();
    const device = isIcmp ? this.icmp : this.underlay;
    device.put(kind, number, addressOf(sender), words, place, length);
    if (device.count < abi.BATCH_SIZE) return;
    if (isIcmp) this.#learn();
    else this.#decapsulate();
  };

  #decapsulate() {
    if (this.underlay.count === 0) return;
    this.containers.begin(this.underlay);
    this.forwarder.inbound(this.underlay, this.now);
    this.judge.inbound(this.vm);
    this.underlay.count = 0;
  }

  #learn() {
    const { icmp } = this;
    if (icmp.count === 0) return;
    for (let i = 0; i < icmp.count; i++) {
      const at = placeOf(i);
      // Nothing but an ICMP message about a VM to which there is a tunnel is believed: that which it quotes is the packet's destination.
      const believed = icmp.kinds[i] !== FORGED_ICMP && this.swap.tunnel(this.judge.quotedReceiver(at)) !== 0;
      icmp.numbers[i] = believed ? abi.FORWARD : abi.DROP_FOREIGN_ICMP;
      const length = 28 + this.judge.quotedLength(at);
      if (believed && asksForReply(this.words, at, length, this.underlay.kind)) this.audit.owe(this.vm);
    }
    this.forwarder.learn(icmp, this.now);
    this.judge.icmp(this.vm);
    icmp.count = 0;
  }

  #encapsulate() {
    this.underlay.messages.fill(0);
    this.underlay.bytes = 0;
    this.forwarder.outbound(this.now);
    this.judge.outbound(this.vm, this.network.round);
  }

  #endLife(vm) {
    this.swap.in(vm);
    this.audit.look(vm);
    this.swap.out();
    for (const word of this.swap.stateOf(vm)) this.digest.add(word, vm);
  }

  #check() {
    this.swap.out();
    this.checked++;
    const at = this.swap.check();
    if (at >= 0) this.failures.add(SWAP, 'a VM leaves something behind in the core', { vm: this.vm, at });
  }
}
