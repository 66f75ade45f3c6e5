/** Programs that are attached to a device itself, without a discipline (tcx, Linux 6.6). */
import * as native from '../native.ts';
import { programId } from './program.ts';
import { bpf, mustBpf } from './syscall.ts';

// <linux/bpf.h>
const BPF_PROG_QUERY = 16;
const BPF_LINK_CREATE = 28;
const PLACES = { ingress: 46, egress: 47 } as const;
const LINK_ATTR_SIZE = 16;
const QUERY_ATTR_SIZE = 64;
const QUERY_IDS = 16;
const QUERY_COUNT = 24;
/** Programs of a place that are asked for. */
const MOST = 16;

type Place = keyof typeof PLACES;

/** The kernel's numbers of programs that this process has attached: none is used a second time soon. */
const own = new Set<number>();
/** One for all questions: there may be thousands at once. */
const query = native.structure(QUERY_ATTR_SIZE, { [QUERY_IDS]: new Uint8Array(4 * MOST) });

/** Attaches a program to a link, until that goes or the descriptor that is returned is closed. */
export function attachTcx(program: number, ifindex: number, place: Place, what: string): number {
  const attributes = native.structure(LINK_ATTR_SIZE, {});
  for (const [i, word] of [program, ifindex, PLACES[place]].entries()) attributes.view.setUint32(i * 4, word, true);
  const link = mustBpf(BPF_LINK_CREATE, attributes, what);
  own.add(programId(program));
  return link;
}

/** Whether a device has any of others at these places; false also where the kernel knows of none. */
export function hasTcx(ifindex: number, ...places: Place[]): boolean {
  return places.some((place) => {
    const { view } = query;
    for (let at = 0; at < QUERY_ATTR_SIZE; at += 4)
      if (at < QUERY_IDS || at >= QUERY_COUNT) view.setUint32(at, 0, true);
    view.setUint32(0, ifindex, true);
    view.setUint32(4, PLACES[place], true);
    view.setUint32(QUERY_COUNT, MOST, true);
    // If there are more, the kernel says how many, and that there was no room.
    const isKnown = bpf(BPF_PROG_QUERY, query) >= 0 || native.errno() === native.ENOSPC;
    if (!isKnown) return false;
    const count = view.getUint32(QUERY_COUNT, true);
    const ids = query.pointed[QUERY_IDS];
    const listed = Array.from({ length: Math.min(count, MOST) }, (_, i) =>
      new DataView(ids.buffer, ids.byteOffset).getUint32(4 * i, true),
    );
    return count > MOST || listed.some((id) => !own.has(id));
  });
}
