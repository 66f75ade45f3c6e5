/** GRE-in-UDP (RFC 8086) through Node's own UDP sockets. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { GRE_UDP_PORT, MESSAGES_PER_PORT } from '../../../core/abi.ts';
import { ipv4 } from '../../../core/address.ts';
import { type CoreConfig, DEFAULT_TTL } from '../../../core/config.ts';
import type { PacketCore } from '../../../core/core.ts';
import { errorCode } from '../../../errors.ts';
import { portError, sourcePorts } from '../gre-udp.ts';
import { type DeviceListeners, EventDevice, type Refusal } from './device.ts';

/** One socket receives; as many as the core has ports send. */
export class PortableGreUdpSocket extends EventDevice {
  readonly #receiver: Socket;
  readonly #sources: readonly Socket[];

  /** `local` is this VM's underlay address as text. Throws ERR_FAILED if the port is taken. */
  static async open(
    local: string,
    sources: number,
    { ttl }: CoreConfig,
    listeners: DeviceListeners,
  ): Promise<PortableGreUdpSocket> {
    const receiver = await openSocket(local, GRE_UDP_PORT).catch((cause) => {
      throw portError(cause);
    });
    const opened: Socket[] = [];
    try {
      for (const port of sourcePorts()) {
        if (opened.length === sources) break;
        const socket = await openSocket(local, port).catch((error) => {
          if (errorCode(error) !== 'EADDRINUSE') throw error;
        });
        if (!socket) continue;
        opened.push(socket);
        socket.setTTL(typeof ttl === 'number' ? ttl : DEFAULT_TTL);
      }
    } catch (error) {
      for (const socket of [receiver, ...opened]) socket.close();
      throw error;
    }
    return new PortableGreUdpSocket(receiver, opened, listeners);
  }

  private constructor(receiver: Socket, sources: readonly Socket[], listeners: DeviceListeners) {
    super(listeners);
    this.#receiver = receiver;
    this.#sources = sources;
    receiver.on('message', (datagram, { address }) => this.receive(datagram, ipv4(address)));
    for (const socket of [receiver, ...sources]) socket.on('error', (error) => this.fail(error));
  }

  protected send(core: PacketCore, message: number): Refusal {
    const source = this.#sources[Math.floor(message / MESSAGES_PER_PORT)] as Socket;
    return this.sendLater(core, message, (bytes, to, done) => source.send(bytes, GRE_UDP_PORT, to, done));
  }

  close(): void {
    for (const socket of [this.#receiver, ...this.#sources]) socket.close();
  }
}

async function openSocket(address: string, port: number): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind({ address, port });
  try {
    await once(socket, 'listening');
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}
