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
/** One for all questions: there may be thousands at once. */
const query = native.structure(QUERY_ATTR_SIZE, {});

/** Whether a device has any at these places; false also where the kernel knows of none. */
export function hasTcx(ifindex: number, ...places: (keyof typeof PLACES)[]): boolean {
  return places.some((place) => {
    query.bytes.fill(0);
    query.view.setUint32(0, ifindex, true);
    query.view.setUint32(4, PLACES[place], true);
    return bpf(BPF_PROG_QUERY, query) >= 0 && query.view.getUint32(QUERY_COUNT, true) > 0;
  });
}
