/**
 * The checks of the packet core for packets that only the kernel sees: the inner source determines the only legal outer source, and nobody speaks for others.
 * An eBPF program at each end of the device; it counts what it lets through, and what not by the reasons of src/core/verdict.ts. Programs stay attached when
 * the daemon goes.
 */
import { LEAST_TCP_SEGMENT, LEAST_UDP_SEGMENT } from '../../core/abi.ts';
import { DROP_REASONS } from '../../core/verdict.ts';
import { assemble } from '../../linux/bpf/assembler.ts';
import { BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY, BpfMap, possibleCpus } from '../../linux/bpf/map.ts';
import { loadProgram } from '../../linux/bpf/program.ts';
import * as native from '../../linux/native.ts';
import type { SystemError } from '../../linux/system-error.ts';
import { contains, ipv4, lowBits, type Prefix } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';
import type { DropSample } from '../drop-log.ts';
import { placesOf } from './arithmetic.ts';
import {
  COUNTER_WORDS,
  DROPS,
  EXAMPLE_WORDS,
  EXAMPLES,
  INBOUND,
  type Maps,
  OUTBOUND,
  PACKETS,
  TOTAL_BYTES,
  VM_WORDS,
} from './counts.ts';
import { type CheckOptions, egress, ingress } from './programs.ts';

export { INBOUND, OUTBOUND } from './counts.ts';

/** IPv4 and UDP, in bytes. */
const UDP_HEADERS = 28;
/** What the verifier answers to a field of struct __sk_buff that the kernel does not know. */
const REFUSALS: readonly (string | undefined)[] = ['EACCES', 'EINVAL'];
/** VMs that are counted, at most. */
const MAX_VMS = 1 << 20;

export interface Traffic {
  packets: number;
  bytes: number;
}

const DIRECTIONS = [
  { direction: 'outbound', which: OUTBOUND },
  { direction: 'inbound', which: INBOUND },
] as const;

export class SourceCheck {
  /** Descriptors of the programs. */
  readonly egress: number;
  readonly ingress: number;
  readonly #counters: BpfMap;
  readonly #vms: BpfMap;
  readonly #cpus = possibleCpus();
  /** The counters as of the last call of `newDrops`. */
  #seen = new BigUint64Array(0);
  readonly #places: { first: number; vmBits: number; underlay: Prefix }[];

  /** Loads the programs. Throws SystemError, such as EPERM without CAP_BPF; then nothing stays open. */
  constructor(options: CheckOptions) {
    const { mappings } = options;
    this.#places = placesOf(mappings).map((first, i) => {
      const { vmBits, underlay } = mappings[i] as Mapping;
      return { first, vmBits, underlay };
    });
    const capacity = Math.max(...this.#places.map(({ first, vmBits }) => first + 2 ** vmBits));
    const opened: number[] = [];
    try {
      this.#counters = new BpfMap(BPF_MAP_TYPE_PERCPU_ARRAY, 8 * COUNTER_WORDS, 1, this.#cpus);
      opened.push(this.#counters.fd);
      this.#vms = new BpfMap(BPF_MAP_TYPE_ARRAY, 8 * VM_WORDS, Math.min(capacity, MAX_VMS));
      opened.push(this.#vms.fd);
      const maps = { counters: this.#counters.fd, vms: this.#vms.fd };
      this.egress = loadEgress(options, maps);
      opened.push(this.egress);
      this.ingress = loadProgram(assemble(ingress(options, maps)), 'for ingress');
    } catch (error) {
      for (const fd of opened) native.close(fd);
      throw error;
    }
  }

  /** Packets, bytes, and drops by the negated verdict, of one direction: OUTBOUND or INBOUND. */
  direction(which: number): Traffic & { drops: number[] } {
    const words = this.#counters.get(0) ?? new BigUint64Array(0);
    const sum = (word: number) => {
      let total = 0;
      for (let cpu = 0; cpu < this.#cpus; cpu++) total += Number(words[cpu * COUNTER_WORDS + which + word] ?? 0n);
      return total;
    };
    const drops = Array.from({ length: DROP_REASONS.length + 1 }, (_, reason) => sum(DROPS + reason));
    return { packets: sum(PACKETS), bytes: sum(TOTAL_BYTES), drops };
  }

  /** What was dropped since the last call, by direction and reason, each with the last such packet of one processor: addresses that the program does not know are missing. */
  newDrops(): DropSample[] {
    const words = this.#counters.get(0) ?? new BigUint64Array(0);
    const before = this.#seen;
    this.#seen = words.slice();
    return DIRECTIONS.flatMap(({ direction, which }) =>
      DROP_REASONS.flatMap(({ verdict }): DropSample[] => {
        let packets = 0;
        let example = {};
        for (let first = which; first < words.length; first += COUNTER_WORDS) {
          const at = first + DROPS - verdict;
          const more = Number((words[at] ?? 0n) - (before[at] ?? 0n));
          packets += more;
          if (more > 0) example = exampleAt(words, first + EXAMPLES - EXAMPLE_WORDS * verdict, which);
        }
        return packets > 0 ? [{ direction, verdict, packets, ...example }] : [];
      }),
    );
  }

  vm(vm: number): { outbound: Traffic; inbound: Traffic } {
    const words = this.#vms.get(this.#placeOf(vm)) ?? [0n, 0n, 0n, 0n];
    const [a, b, c, d] = Array.from(words, Number) as [number, number, number, number];
    return { outbound: { packets: a, bytes: b }, inbound: { packets: c, bytes: d } };
  }

  /** Whether packets have come from a VM since it was forgotten; of VMs that are not counted, they may have. */
  isHeard(vm: number): boolean {
    return this.#vms.get(this.#placeOf(vm))?.[2] !== 0n;
  }

  forget(vm: number): void {
    const place = this.#placeOf(vm);
    if (place < MAX_VMS) this.#vms.put(place, [0n, 0n, 0n, 0n]);
  }

  /** As in the programs; beyond the map's end if no mapping has the VM. */
  #placeOf(vm: number): number {
    const found = this.#places.find(({ underlay }) => contains(underlay, ipv4(vm)));
    return found ? found.first + (vm & Number(lowBits(found.vmBits))) : MAX_VMS;
  }

  /** What is attached stays. */
  close(): void {
    native.close(this.egress);
    native.close(this.ingress);
    this.#counters.close();
    this.#vms.close();
  }
}

/** The addresses of the example at `word`: 0 is what is not known. */
function exampleAt(words: BigUint64Array, word: number, which: number): Partial<DropSample> {
  const [innerSource, innerDestination, vm] = new Uint32Array(words.buffer, words.byteOffset + 8 * word, 3);
  return {
    ...(innerSource && { innerSource }),
    ...(innerDestination && { innerDestination }),
    ...(vm && (which === INBOUND ? { outerSource: vm } : { outerDestination: vm })),
  };
}

/** Linux before 5.7 has no segment size for a program to read, and refuses it. */
function loadEgress(options: CheckOptions, maps: Maps): number {
  const { overhead } = options;
  const floors = {
    // Headers are not more than half of what goes out.
    udp: Math.max(LEAST_UDP_SEGMENT, UDP_HEADERS + overhead),
    others: LEAST_TCP_SEGMENT,
  };
  try {
    return loadProgram(assemble(egress({ ...options, floors }, maps)), 'for egress');
  } catch (error) {
    if (!REFUSALS.includes((error as SystemError).code)) throw error;
    return loadProgram(assemble(egress(options, maps)), 'for egress');
  }
}
