/** What each VM's core counts, against what the model saw of its packets: by direction and reason, for every VM, each time that it ends. */
import { abi } from 'inlay/core';
import { COUNTERS, REPLIES } from './failures.mjs';

const DIRECTIONS = ['outbound', 'inbound', 'icmp'];
const PLACES = [abi.OUTBOUND_COUNTERS, abi.INBOUND_COUNTERS, abi.ICMP_COUNTERS].map((at) => at / 8);
const ROW = DIRECTIONS.length * abi.VERDICTS;

export class Audit {
  /** Of all VMs, what their cores had counted: by direction. */
  totals = DIRECTIONS.map(() => ({ received: 0, forwarded: 0, drops: new Float64Array(abi.VERDICTS) }));
  replies = 0;
  suppressed = 0;
  /** VMs that were looked at, at their end; one that vanished and came back is two. */
  audited = 0;
  /** Tunnels that are open in the end, and those that were closed. */
  tunnels = 0;
  closed = 0;
  #floats;
  #words;
  /** What the model saw: packets by VM, direction and verdict; bytes; replies that were due; tunnels opened and not closed. */
  #seen;
  #bytes;
  #due;
  #tunnels;

  constructor(core, vms, failures) {
    this.failures = failures;
    this.#floats = new Float64Array(core.memory);
    this.#words = new Int32Array(core.memory);
    this.#seen = new Uint32Array(vms * ROW);
    this.#bytes = [new Float64Array(vms), new Float64Array(vms)];
    this.#due = new Uint32Array(vms);
    this.#tunnels = new Int32Array(vms);
  }

  /** The model saw `packets` packets of a VM with a verdict; `direction` is a number. */
  see(vm, direction, verdict, packets = 1) {
    this.#seen[vm * ROW + direction * abi.VERDICTS - verdict] += packets;
  }

  /** Bytes of inner packets that went on. */
  seeBytes(vm, direction, bytes) {
    this.#bytes[direction][vm] += bytes;
  }

  /** A container is to be told about its packet, unless there are too many such. */
  owe(vm) {
    this.#due[vm]++;
  }

  seeTunnels(vm, change, count) {
    this.#tunnels[vm] += change === 'opened' ? count : -count;
    if (change === 'closed') this.closed += count;
  }

  /** Looks at the VM that is in the core, and forgets what was seen of it. */
  look(vm) {
    this.audited++;
    DIRECTIONS.forEach((name, direction) => {
      this.#lookAt(vm, direction, name);
    });
    const out = PLACES[0];
    const replies = this.#floats[out + abi.COUNTERS_REPLIES / 8];
    const suppressed = this.#floats[out + abi.COUNTERS_SUPPRESSED / 8];
    this.replies += replies;
    this.suppressed += suppressed;
    const tunnels = this.#words[(abi.CHANGES + abi.CHANGES_TUNNELS) / 4];
    this.tunnels += tunnels;
    this.#expect(vm, 'replies made and not made', replies + suppressed, this.#due[vm], REPLIES);
    this.#expect(vm, 'tunnels that are open', tunnels, this.#tunnels[vm]);
    this.#seen.fill(0, vm * ROW, (vm + 1) * ROW);
    for (const bytes of this.#bytes) bytes[vm] = 0;
    this.#due[vm] = 0;
    this.#tunnels[vm] = 0;
  }

  #lookAt(vm, direction, name) {
    const [f, floats, total] = [PLACES[direction], this.#floats, this.totals[direction]];
    const [received, forwarded] = [floats[f], floats[f + abi.COUNTERS_FORWARDED / 8]];
    let dropped = 0;
    const seen = vm * ROW + direction * abi.VERDICTS;
    for (let reason = 1; reason < abi.VERDICTS; reason++) {
      const drops = floats[f + abi.COUNTERS_DROPS / 8 + reason];
      dropped += drops;
      total.drops[reason] += drops;
      if (drops !== this.#seen[seen + reason])
        this.#expect(vm, `${name} packets with verdict -${reason}`, drops, this.#seen[seen + reason]);
    }
    total.received += received;
    total.forwarded += forwarded;
    if (received !== forwarded + dropped)
      this.failures.add(COUNTERS, 'a core has received other than it forwarded and dropped', {
        vm,
        name,
        received,
        forwarded,
      });
    this.#expect(vm, `${name} packets forwarded`, forwarded, this.#seen[seen]);
    if (direction < 2)
      this.#expect(vm, `${name} bytes`, floats[f + abi.COUNTERS_BYTES / 8], this.#bytes[direction][vm]);
  }

  #expect(vm, what, counted, seen, invariant = COUNTERS) {
    if (counted !== seen)
      this.failures.add(invariant, `a core's counter is not what was seen: ${what}`, { vm, counted, seen });
  }
}
