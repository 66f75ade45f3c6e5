/** ICMP messages from the underlay, through the package raw-socket. */
import { rawSocketError } from '../raw-socket-error.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';
import { loadRawSocket } from './load-raw-socket.ts';

const IPPROTO_ICMP = 1;
/** Destination unreachable (RFC 792): the only type that the core listens to. */
const WANTED_TYPE = 3;
const headerLength = (packet: Uint8Array) => ((packet[0] ?? 0) & 15) * 4;
/** What routers quote need not be more (RFC 1812 §4.3.2.3). */
const MAX_MESSAGE = 1500;

export class RawIcmpSocket extends EventDevice {
  readonly #socket: import('raw-socket').Socket;

  static async open(listeners: DeviceListeners): Promise<RawIcmpSocket> {
    const raw = await loadRawSocket();
    try {
      return new RawIcmpSocket(raw, listeners);
    } catch (cause) {
      throw rawSocketError(cause);
    }
  }

  private constructor(raw: typeof import('raw-socket'), listeners: DeviceListeners) {
    super(listeners);
    this.#socket = raw.createSocket({ protocol: IPPROTO_ICMP, bufferSize: MAX_MESSAGE });
    // No filter is to be had from the package; echo requests and the like are not even to be counted.
    this.#socket.on('message', (packet) => {
      if (packet[headerLength(packet)] === WANTED_TYPE) this.receive(packet);
    });
    this.#socket.on('error', (error) => this.fail(error));
  }

  protected send(): Refusal {
    return 'EOPNOTSUPP'; // It only listens.
  }

  close(): void {
    this.#socket.close();
  }
}
