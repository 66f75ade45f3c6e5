/** eBPF maps (Documentation/bpf/maps.rst, bpf(2)): where programs count. */
import { readFileSync } from 'node:fs';
import * as native from '../native.ts';
import { type Attributes, bpf, mustBpf } from './syscall.ts';

// <linux/bpf.h>
const BPF_MAP_CREATE = 0;
const BPF_MAP_LOOKUP_ELEM = 1;
const BPF_MAP_UPDATE_ELEM = 2;
export const BPF_MAP_TYPE_ARRAY = 2;
export const BPF_MAP_TYPE_PERCPU_ARRAY = 6;
/** The values of an array can be mapped into a process (mmap(2)). Needs Linux 5.5. */
export const BPF_F_MMAPABLE = 0x400;
const MAP_ATTR_SIZE = 20;
const ELEMENT_ATTR_SIZE = 32;
const WHAT = 'of a map';

/** A map; keys are u32. It lives as long as its descriptor or a program that uses it. */
export class BpfMap {
  readonly fd: number;
  readonly #element: Attributes;
  readonly #key: Uint32Array;
  readonly #value: BigUint64Array;

  /** `valueSize` is in bytes, a multiple of 8; with PERCPU there is a value for each of `cpus`. */
  constructor(type: number, valueSize: number, capacity: number, cpus = 1, flags = 0) {
    const attributes = native.structure(MAP_ATTR_SIZE, {});
    for (const [i, word] of [type, 4, valueSize, capacity, flags].entries())
      attributes.view.setUint32(i * 4, word, true);
    const element = native.structure(ELEMENT_ATTR_SIZE, { 8: new Uint8Array(4), 16: new Uint8Array(valueSize * cpus) });
    this.#element = element;
    this.#key = new Uint32Array(element.bytes.buffer, element.pointed[8].byteOffset, 1);
    this.#value = new BigUint64Array(element.bytes.buffer, element.pointed[16].byteOffset, (valueSize / 8) * cpus);
    this.fd = mustBpf(BPF_MAP_CREATE, attributes, WHAT);
    element.view.setUint32(0, this.fd, true);
  }

  /** The value of a key, valid until the next call; undefined if there is none. */
  get(key: number): BigUint64Array | undefined {
    this.#key[0] = key;
    return bpf(BPF_MAP_LOOKUP_ELEM, this.#element) < 0 ? undefined : this.#value;
  }

  put(key: number, value: readonly bigint[]): void {
    this.#key[0] = key;
    this.#value.set(value);
    mustBpf(BPF_MAP_UPDATE_ELEM, this.#element, WHAT);
  }

  close(): void {
    native.close(this.fd);
  }
}

/** As many as a value of a map with one for each processor has ("0-3" or "0,2-3"). */
export function possibleCpus(): number {
  const last = readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim().split(/[,-]/).at(-1);
  return Number(last) + 1;
}
