/** TUN devices in the event loop: through the package tuntap2 where it is installed, else by ioctl and node:fs. */
import fs from 'node:fs';
import { errorCode } from '../../errors.ts';
import { ip } from '../../iproute.ts';
import type { PacketDevice } from '../device.ts';
import { type DeviceListeners, EventDevice } from './device.ts';

const MAX_PACKET = 65535;

/** Creates the TUN device `name`. */
export async function openPortableTun(name: string, listeners: DeviceListeners): Promise<PacketDevice> {
  let tuntap: typeof import('tuntap2');
  try {
    tuntap = await import('tuntap2');
  } catch (error) {
    if (errorCode(error) !== 'ERR_MODULE_NOT_FOUND') throw error;
    const { openTun } = await import('../linux/tun.ts');
    return new FileTun(openTun(name, 0), listeners);
  }
  return Tuntap2Tun.open(tuntap, name, listeners);
}

/** A blocking descriptor, read by one thread of Node's pool at a time. */
class FileTun extends EventDevice {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(MAX_PACKET);
  #closed = false;

  constructor(fd: number, listeners: DeviceListeners) {
    super(listeners);
    this.#fd = fd;
    this.#readNext();
  }

  #readNext(): void {
    fs.read(this.#fd, this.#buffer, 0, MAX_PACKET, null, (error, length) => {
      if (this.#closed) return;
      if (error) {
        this.fail(error);
        return;
      }
      this.receive(this.#buffer.subarray(0, length));
      this.#readNext();
    });
  }

  protected send(packet: Uint8Array): boolean {
    try {
      fs.writeSync(this.#fd, packet);
      return true;
    } catch {
      return false;
    }
  }

  /** A read that waits keeps the descriptor in use, and the process: it ends when the device is deleted. */
  close(): void {
    this.#closed = true;
    fs.closeSync(this.#fd);
  }
}

/** The package's stream: one `data` event a packet. Its device has a name of the package's choice, so it is renamed while down. */
export class Tuntap2Tun extends EventDevice {
  readonly #tun: import('tuntap2').Tun;

  static async open(tuntap: typeof import('tuntap2'), name: string, listeners: DeviceListeners): Promise<Tuntap2Tun> {
    const tun = new tuntap.Tun();
    if (tun.name !== name) await ip(['link', 'set', 'dev', tun.name, 'name', name]);
    return new Tuntap2Tun(tun, listeners);
  }

  private constructor(tun: import('tuntap2').Tun, listeners: DeviceListeners) {
    super(listeners);
    this.#tun = tun;
    tun.on('data', (packet: Buffer) => this.receive(packet));
    tun.on('error', (error: Error) => this.fail(error));
  }

  protected send(packet: Uint8Array): boolean {
    // A stream that asks to wait has taken the packet all the same; refusing the next ones bounds its buffer.
    if (this.#tun.writableNeedDrain) return false;
    this.#tun.write(Buffer.from(packet));
    return true;
  }

  close(): void {
    this.#tun.release();
  }
}
