/** Raw socket (raw(7)) for IP protocol 47: whole packets, outer IPv4 header included. */
import { BATCH_SIZE } from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import { IPPROTO_GRE } from '../../../linux/protocols.ts';
import { attachSocketFilter } from '../../../linux/socket-filter.ts';
import type { PacketDevice } from '../device.ts';
import { noteSegmentSizes, type SegmentSizes, type SizeTable } from './segment-sizes.ts';
import { Sender, type SendListeners } from './sender.ts';
import { type Share, shareFilter } from './share-filter.ts';
import { enlargeBuffers, openRawSocket, prepared, Receiver, setOption } from './socket.ts';

/** A socket, and what its kernel says of merged packets, or why it does not. */
export interface OpenedGreSocket {
  fd: number;
  sizes: SizeTable | undefined;
  obstacle: unknown;
}

/** Opens a socket for GRE packets to and from `local`, a u32 number. */
export function openGreSocket(local: number, share: Share): OpenedGreSocket {
  const fd = openRawSocket(local, IPPROTO_GRE);
  let sizes: SizeTable | undefined;
  let obstacle: unknown;
  prepared(fd, () => {
    setOption(fd, native.IPPROTO_IP, native.IP_HDRINCL, 1, 'IP_HDRINCL');
    enlargeBuffers(fd);
    try {
      sizes = noteSegmentSizes(fd, share);
    } catch (cause) {
      obstacle = cause;
      if (share.count > 1) attachSocketFilter(fd, shareFilter(share));
    }
  });
  return { fd, sizes, obstacle };
}

export class GreSocket implements PacketDevice {
  readonly #receiver: Receiver;
  readonly #sizes: SegmentSizes | undefined;
  readonly #sender: Sender;

  /** `listeners` hear which messages were sent. */
  constructor(fd: number, sizes: SegmentSizes | undefined, core: PacketCore, listeners: SendListeners) {
    this.#sizes = sizes;
    this.#sender = new Sender(fd, core, listeners);
    this.#receiver = new Receiver(fd, core, BATCH_SIZE);
  }

  read(core: PacketCore): number {
    return this.#receiver.receivePackets(core, this.#sizes);
  }

  get more(): boolean {
    return this.#receiver.more;
  }

  write(_: PacketCore, first: number, end: number): void {
    this.#sender.send(first, end);
  }
}
