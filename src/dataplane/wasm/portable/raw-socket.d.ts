/** The part of the package raw-socket that the portable engine uses. */
declare module 'raw-socket' {
  import type { EventEmitter } from 'node:events';

  interface Socket extends EventEmitter {
    on(event: 'message', listener: (packet: Buffer, source: string) => void): this;
    on(event: 'error', listener: (error: Error) => void): this;
    on(event: 'close', listener: () => void): this;
    send(
      packet: Buffer,
      offset: number,
      length: number,
      address: string,
      done: (error: Error | null, bytes: number) => void,
    ): this;
    close(): this;
  }

  export function createSocket(options: { protocol: number; bufferSize?: number }): Socket;
}
