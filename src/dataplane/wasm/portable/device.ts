/** A device that gets its packets from events, one at a time. */
import { ipv4Text } from '../../../core/address.ts';
import type { PacketCore } from '../../../core/core.ts';
import type { PacketDevice } from '../device.ts';
import type { SentPacket } from '../refusals.ts';
import { sendErrorName } from './send-error.ts';

/** The name of the error number if a message was not taken, as the kernel has it or would. */
export type Refusal = string | undefined;

export interface DeviceListeners {
  /** Called for each packet; has to read it before it returns. */
  onReadable: () => void;
  onError: (error: Error) => void;
  /** Called with the error number's name for a message of the core's last call that was not taken. */
  onRefused: (errno: string, message: number) => void;
  /** Called when what was taken was sent, or could not be sent after all: with the name of the error number. */
  onSent?: (sent: SentPacket, errno?: string) => void;
}

/** Most messages that wait to be sent; more are refused, so that a slow socket costs packets and not memory. */
const MAX_UNSENT = 256;

export abstract class EventDevice implements PacketDevice {
  readonly #listeners: DeviceListeners;
  #received: Uint8Array | undefined;
  #peer: number | undefined;
  #unsent = 0;

  constructor(listeners: DeviceListeners) {
    this.#listeners = listeners;
  }

  /** Hands over one packet, or one GRE-in-UDP datagram from the VM `peer`, whose bytes need to last only for this call. */
  protected receive(packet: Uint8Array, peer?: number): void {
    this.#received = packet;
    this.#peer = peer;
    this.#listeners.onReadable();
    this.#received = undefined;
  }

  /** Sends a copy of a message, for those who send later, when the slot may hold another packet; refused if too many wait. */
  protected sendLater(
    core: PacketCore,
    message: number,
    transmit: (bytes: Buffer, to: string, done: (error: Error | null) => void) => void,
  ): Refusal {
    if (this.#unsent >= MAX_UNSENT) return 'EAGAIN';
    const bytes = Buffer.from(core.messages.bytes(message).buffer);
    const peer = core.messages.peer(message);
    // Without UDP_SEGMENT a message carries one packet, behind its outer headers.
    const packet = bytes.subarray(bytes.length - core.messages.content(message).bytes);
    this.#unsent++;
    transmit(bytes, ipv4Text(peer), (error) => {
      this.#unsent--;
      this.#listeners.onSent?.({ peer, packet }, error ? sendErrorName(error) : undefined);
    });
    return undefined;
  }

  protected fail(error: Error): void {
    this.#listeners.onError(error);
  }

  read(core: PacketCore): number {
    if (!this.#received) return 0;
    core.put(0, this.#received);
    if (this.#peer !== undefined) core.describeDatagrams(0, this.#received.length, this.#received.length, this.#peer);
    this.#received = undefined;
    return 1;
  }

  write(core: PacketCore, first: number, end: number): void {
    for (let message = first; message < end; message++) {
      const errno = this.send(core, message);
      if (errno !== undefined) this.#listeners.onRefused(errno, message);
    }
  }

  /** Writes one message, whose bytes last only for this call. */
  protected abstract send(core: PacketCore, message: number): Refusal;
  abstract close(): void;
}
