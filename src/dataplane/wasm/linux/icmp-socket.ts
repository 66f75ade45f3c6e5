/** Raw socket (raw(7)) for ICMP messages from the underlay, header included: what routers, other VMs and our own kernel say about packets of ours. */
import { BATCH_SIZE } from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import type { PacketSource } from '../device.ts';
import { openRawSocket, prepared, Receiver, setOption } from './socket.ts';

/** Destination unreachable (RFC 792): the only type that the core listens to. */
const WANTED_TYPE = 3;

/** Opens a socket for ICMP messages to `local`, a u32 number; returns the descriptor. */
export function openIcmpSocket(local: number): number {
  const fd = openRawSocket(local, native.IPPROTO_ICMP);
  // struct icmp_filter, <linux/icmp.h>: a bit for each type that is not wanted.
  return prepared(fd, () => setOption(fd, native.SOL_RAW, native.ICMP_FILTER, ~(1 << WANTED_TYPE), 'ICMP_FILTER'));
}

export class IcmpSocket implements PacketSource {
  readonly #receiver: Receiver;

  constructor(fd: number, core: PacketCore) {
    this.#receiver = new Receiver(fd, core, BATCH_SIZE);
  }

  read(core: PacketCore): number {
    return this.#receiver.receivePackets(core);
  }
}
