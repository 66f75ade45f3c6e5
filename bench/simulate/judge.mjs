/** The core's verdicts, against what the model expects: for each packet of a batch that was handled. */
import { abi } from 'inlay/core';
import { ENDS, VERDICTS } from './failures.mjs';
import { INBOUND, OUTBOUND } from './ledger.mjs';
import { OVERHEAD, vmAt } from './mesh.mjs';
import { FORGED_GRE, FORGED_UDP } from './network.mjs';
import { FOREIGN_SOURCE, KINDS, MESH, NO_MAPPING, OWN_SLICE, RESERVED, swapped } from './traffic.mjs';

const EXPECTED = {
  [MESH]: abi.FORWARD,
  [FOREIGN_SOURCE]: abi.DROP_FOREIGN_SOURCE,
  [NO_MAPPING]: abi.DROP_NO_MAPPING,
  [OWN_SLICE]: abi.DROP_OWN_SLICE,
  [RESERVED]: abi.DROP_RESERVED_ADDRESS,
};
/** Drops that the container is told of (docs/core.md, Replies). */
const ANSWERED = [abi.DROP_NO_MAPPING, abi.DROP_OWN_SLICE, abi.DROP_RESERVED_ADDRESS, abi.DROP_TOO_BIG];
const [OUT, IN, FROM_ICMP] = [0, 1, 2];

export class Judge {
  /** Verdicts that were compared. */
  verdicts = 0;
  /** Forged packets and fragments that were dropped, by reason: they have no end of their own in the ledger. */
  forged = new Float64Array(abi.VERDICTS);
  #words;
  #floats;

  constructor(simulation) {
    this.simulation = simulation;
    this.#words = new Int32Array(simulation.core.memory);
    this.#floats = new Float64Array(simulation.core.memory);
  }

  /** The containers' batch has been handled. */
  outbound(vm, round) {
    const { core, containers, underlay, ledger, audit, failures } = this.simulation;
    for (let i = 0; i < containers.count; i++) {
      const [number, kind, verdict] = [containers.numbers[i], containers.kinds[i], core.verdict(i)];
      this.verdicts++;
      const messages = underlay.messages[i];
      audit.see(vm, OUT, verdict, verdict === abi.FORWARD ? messages : 1);
      if (verdict !== EXPECTED[kind] && !this.#isAllowed(vm, number, kind, verdict, round))
        failures.add(VERDICTS, 'a verdict on what a container sent is not the right one', {
          vm,
          number,
          kind: KINDS[kind],
          verdict,
        });
      if (verdict === abi.FORWARD) {
        ledger.release(number, messages);
        continue;
      }
      if (messages > 0) failures.add(ENDS, 'a packet that the core dropped is in a message', { vm, number, verdict });
      if (ANSWERED.includes(verdict)) audit.owe(vm);
      ledger.end(number, OUTBOUND - verdict);
    }
    audit.seeBytes(vm, OUT, underlay.bytes);
  }

  /** What else may become of a packet for another VM. */
  #isAllowed(vm, number, kind, verdict, round) {
    const { mesh, traffic, swap } = this.simulation;
    if (kind !== MESH) return false;
    traffic.look(number, vm);
    if (verdict === abi.DROP_TOO_MANY_TUNNELS) {
      const tunnel = swap.tunnel(traffic.receiver);
      return tunnel === 0 || this.#floats[tunnel / 2 + abi.TUNNEL_INBOUND_PACKETS / 8] === 0;
    }
    if (verdict !== abi.DROP_TOO_BIG || !traffic.isWhole) return false;
    const path = mesh.leastPathMtu(vm, vmAt(traffic.receiver), round) - OVERHEAD[mesh.encapsulationOf(vm)];
    return traffic.length > path;
  }

  /** A batch from the underlay has been handled. */
  inbound(vm) {
    const { core, containers, underlay, ledger, audit, failures } = this.simulation;
    const missing = containers.forwarded();
    if (missing < underlay.count)
      failures.add(ENDS, 'a packet that the core says it forwards is in no message', {
        vm,
        number: underlay.numbers[missing],
      });
    for (let i = 0; i < underlay.count; i++) {
      const [kind, number, verdict] = [underlay.kinds[i], underlay.numbers[i], core.verdict(i)];
      const isForged = kind === FORGED_GRE || kind === FORGED_UDP;
      this.verdicts++;
      audit.see(vm, IN, verdict);
      // The number of what is forged is the verdict on it.
      if (verdict !== (isForged ? number : abi.FORWARD))
        failures.add(VERDICTS, 'a verdict on what the underlay brought is not the right one', {
          vm,
          isForged,
          number,
          verdict,
        });
      if (verdict === abi.FORWARD) continue;
      if (isForged || ledger.isFragmented(number)) this.forged[-verdict]++;
      if (!isForged) ledger.end(number, INBOUND - verdict);
    }
    audit.seeBytes(vm, IN, containers.bytes);
  }

  /** A batch of ICMP messages has been handled: of each, `numbers` has the expected verdict. */
  icmp(vm) {
    const { core, icmp, audit, failures } = this.simulation;
    for (let i = 0; i < icmp.count; i++) {
      const verdict = core.verdict(i);
      this.verdicts++;
      audit.see(vm, FROM_ICMP, verdict);
      if (verdict !== icmp.numbers[i])
        failures.add(VERDICTS, 'a verdict on an ICMP message is not the right one', {
          vm,
          verdict,
          right: icmp.numbers[i],
        });
    }
  }

  /** The VM to which the packet went that an ICMP message at `at` quotes, and how many bytes it quotes. */
  quotedReceiver(at) {
    return swapped(this.#words[at + 7 + 4]) >>> 0;
  }

  quotedLength(at) {
    return ((this.#words[at] >>> 16) & 0xff) * 256 + (this.#words[at] >>> 24) - 28;
  }
}
