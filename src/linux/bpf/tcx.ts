/** Programs that are attached to a device itself, without a discipline (tcx, Linux 6.6). */
import * as native from '../native.ts';
import { BPF_TCX_INGRESS } from './program.ts';
import { bpf } from './syscall.ts';

// <linux/bpf.h>
const BPF_PROG_QUERY = 16;
const BPF_TCX_EGRESS = 47;
const QUERY_ATTR_SIZE = 64;
const QUERY_COUNT = 24;

const PLACES = { ingress: BPF_TCX_INGRESS, egress: BPF_TCX_EGRESS } as const;

/** Whether a device has any at these places; false also where the kernel knows of none. */
export function hasTcx(ifindex: number, ...places: (keyof typeof PLACES)[]): boolean {
  return places.some((place) => {
    const attributes = native.structure(QUERY_ATTR_SIZE, {});
    attributes.view.setUint32(0, ifindex, true);
    attributes.view.setUint32(4, PLACES[place], true);
    return bpf(BPF_PROG_QUERY, attributes) >= 0 && attributes.view.getUint32(QUERY_COUNT, true) > 0;
  });
}
