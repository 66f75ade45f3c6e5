/** Both twins, for the suites that run on each. */
import { readFileSync } from 'node:fs';
import { abi, type CoreConfig, type PacketCore, wasmCore } from '../src/core/index.ts';
import { typescriptCore } from '../src/core/typescript.ts';

const module = (file: string) => new WebAssembly.Module(readFileSync(new URL(`../build/${file}`, import.meta.url)));

export const cores: { name: string; make: () => PacketCore }[] = [
  { name: 'wasm', make: () => wasmCore(module('core.wasm')) },
  { name: 'wasm, scalar', make: () => wasmCore(module('core-scalar.wasm')) },
  { name: 'typescript', make: typescriptCore },
];

/** VM 192.168.16.32 of the mesh 10.0.0.0/8 over 192.168.0.0/16. */
export const config: CoreConfig = {
  local: 0xc0a81020,
  mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
};

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Puts a packet with its virtio header before it into slot `index`, the packet where packets lie, and describes both. */
export function putFrame(core: PacketCore, index: number, frame: Uint8Array): void {
  const address = core.slot(index) - abi.VIRTIO_SIZE;
  core.bytes.set(frame, address);
  core.describe(index, frame.length, address);
}

export interface Message {
  port: number;
  /** Its number among the core's messages. */
  index: number;
  bytes: Uint8Array;
  /** Its bytes, as the socket would divide them. */
  datagrams: Uint8Array[];
  /** The VM it is for. */
  peer: number;
  content: { packets: number; bytes: number };
  /** It is to go to the overlay device. */
  whole: boolean;
}

/** All that the last call made, port after port. */
export function messages(core: PacketCore): Message[] {
  return Array.from({ length: abi.MAX_PORTS }, (_, port) =>
    Array.from({ length: core.messages.count(port) }, (_, i) => {
      const index = port * abi.MESSAGES_PER_PORT + i;
      const bytes = core.messages.bytes(index);
      const segment = core.messages.segment(index);
      const datagrams: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += segment) datagrams.push(bytes.subarray(at, at + segment));
      return {
        port,
        index,
        bytes,
        datagrams,
        peer: core.messages.peer(index),
        content: core.messages.content(index),
        whole: core.messages.isWhole(index),
      };
    }),
  ).flat();
}

/** A core's number where the layout has it. */
export function word(core: PacketCore, address: number): number {
  return new DataView(core.memory).getUint32(address, true);
}
