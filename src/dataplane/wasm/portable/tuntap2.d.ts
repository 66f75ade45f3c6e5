/** The part of the package tuntap2 that the portable engine uses. */
declare module 'tuntap2' {
  import type { Duplex } from 'node:stream';

  export class Tun extends Duplex {
    readonly name: string;
    release(): void;
  }
}
