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
  type RefusalListener,
  sendMessages,
  setOption,
} from './socket.ts';
import type { TunDevice } from './tun.ts';

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
  readonly #tun: TunDevice;
  readonly #receiver: Receiver;
  readonly #onRefused: RefusalListener;

  /** `tun` takes the super-packets that the kernel is to cut. */
  constructor(fd: number, core: PacketCore, tun: TunDevice, onRefused: RefusalListener) {
    this.#fd = fd;
    this.#onRefused = onRefused;
    this.#tun = tun;
    this.#base = native.pointer(core.bytes);
    this.#receiver = new Receiver(fd, core, BATCH_SIZE);
  }

  read(core: PacketCore): number {
    return this.#receiver.receivePackets(core);
  }

  write(core: PacketCore): void {
    const count = core.messageCount();
    for (let i = 0; i < count; ) {
      // One after the other, so that the packets of a flow stay in order.
      if (core.isWhole(i)) {
        this.#tun.writeMessage(core, i++);
        continue;
      }
      const first = i;
      while (i < count && !core.isWhole(i)) i++;
      sendMessages(this.#fd, core, this.#base, first, i, this.#onRefused);
    }
  }

  close(): void {
    native.close(this.#fd);
  }
}
