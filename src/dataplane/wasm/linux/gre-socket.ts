/** Raw socket (raw(7)) for IP protocol 47: whole packets, outer IPv4 header included. */
import { BATCH_SIZE } from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import * as native from '../../../linux/native.ts';
import type { PacketDevice } from '../device.ts';
import { attachFilter, type Share } from './share-filter.ts';
import {
  enlargeBuffers,
  openRawSocket,
  prepared,
  Receiver,
  type SendListeners,
  sendMessages,
  setOption,
} from './socket.ts';

/** Opens a socket for GRE packets to and from `local`, a u32 number; returns the descriptor. */
export function openGreSocket(local: number, share: Share): number {
  const fd = openRawSocket(local, native.IPPROTO_GRE);
  return prepared(fd, () => {
    setOption(fd, native.IPPROTO_IP, native.IP_HDRINCL, 1, 'IP_HDRINCL');
    if (share.count > 1) attachFilter(fd, share);
    enlargeBuffers(fd);
  });
}

export class GreSocket implements PacketDevice {
  readonly #fd: number;
  readonly #base: native.Pointer;
  readonly #receiver: Receiver;
  readonly #listeners: SendListeners;

  /** `listeners` hear which messages were sent. */
  constructor(fd: number, core: PacketCore, listeners: SendListeners) {
    this.#fd = fd;
    this.#listeners = listeners;
    this.#base = native.pointer(core.bytes);
    this.#receiver = new Receiver(fd, core, BATCH_SIZE);
  }

  read(core: PacketCore): number {
    return this.#receiver.receivePackets(core);
  }

  write(_: PacketCore, first: number, end: number): void {
    sendMessages(this.#fd, this.#base, first, end, this.#listeners);
  }
}
