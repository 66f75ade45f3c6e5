/** GRE packets through the package raw-socket. */

import type { PacketCore } from '../../../core/core.ts';
import { IPPROTO_GRE } from '../../../linux/protocols.ts';
import { rawSocketError } from '../raw-socket-error.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';
import { loadRawSocket } from './load-raw-socket.ts';

/** Sends whole packets, header included, and receives none (raw(7)). */
const IPPROTO_RAW = 255;
const MAX_PACKET = 65535;

/**
 * Two sockets, because one that sends as well is starved of receiving; and the package fills one receive buffer again and again, so a
 * packet is handed over at once.
 */
export class RawGreSocket extends EventDevice {
  readonly #receiver: import('raw-socket').Socket;
  readonly #sender: import('raw-socket').Socket;

  static async open(listeners: DeviceListeners): Promise<RawGreSocket> {
    const raw = await loadRawSocket();
    try {
      return new RawGreSocket(raw, listeners);
    } catch (cause) {
      throw rawSocketError(cause);
    }
  }

  private constructor(raw: typeof import('raw-socket'), listeners: DeviceListeners) {
    super(listeners);
    this.#receiver = raw.createSocket({ protocol: IPPROTO_GRE, bufferSize: MAX_PACKET });
    try {
      this.#sender = raw.createSocket({ protocol: IPPROTO_RAW });
    } catch (error) {
      this.#receiver.close();
      throw error;
    }
    this.#receiver.on('message', (packet) => this.receive(packet));
    this.#receiver.on('error', (error) => this.fail(error));
    this.#sender.on('error', (error) => this.fail(error));
  }

  protected send(core: PacketCore, message: number): Refusal {
    return this.sendLater(core, message, (bytes, to, done) => this.#sender.send(bytes, 0, bytes.length, to, done));
  }

  close(): void {
    this.#receiver.close();
    this.#sender.close();
  }
}
