/** What the packet core makes of one packet: what the programs of the fast path may do with it. */
import { readFileSync } from 'node:fs';
import { abi, wasmCore } from 'inlay/core';
import { put16, put32, sum } from '../fuzz/bytes.mjs';

const module = new WebAssembly.Module(readFileSync(new URL('../../build/core.wasm', import.meta.url)));
/** ms; the same for all packets, so that nothing is forgotten or given anew. */
const NOW = 1;
const [IPV4_LENGTH, UDP_LENGTH, GRE] = [20, 8, 47];
/** The kernel hands packets over with a virtio header, so a checksum that looks open stays as it is. */
const DEVICES = { offloads: abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_MERGE | abi.OFFLOAD_GRE_SEGMENT, ports: 1 };
const MERGED = (abi.DESCRIPTORS + abi.DESCRIPTOR_MERGED) / 4;
const ANOMALIES = (abi.INBOUND_COUNTERS + abi.COUNTERS_ANOMALIES) / 8;

/** The outer headers of gre before `inner`, as any sender of this mesh writes them. */
function greAround(inner, { source, destination, tos = 0, ttl = 64, key }) {
  const length = key === undefined ? 4 : 8;
  const packet = new Uint8Array(IPV4_LENGTH + length + inner.length);
  packet.set([0x45, tos, packet.length >> 8, packet.length, 0, 0, 0x40, 0, ttl, GRE]);
  put32(packet, 12, source);
  put32(packet, 16, destination);
  put16(packet, 10, ~sum(packet, 0, IPV4_LENGTH));
  packet.set([key === undefined ? 0 : 0x20, 0, 8, 0], IPV4_LENGTH);
  if (key !== undefined) put32(packet, IPV4_LENGTH + 4, key);
  packet.set(inner, IPV4_LENGTH + length);
  return packet;
}

export class CoreOracle {
  #core = wasmCore(module);
  #words = new Uint32Array(this.#core.memory);
  #floats = new Float64Array(this.#core.memory);
  #config;
  #limit;
  #heard = new Set();

  /** Without `isWhole`, a super-packet is cut. */
  constructor(config, isWhole = true) {
    this.#config = config;
    this.#limit = config.mtu;
    this.#core.attach(isWhole ? DEVICES : { ...DEVICES, offloads: abi.OFFLOAD_VIRTIO });
    this.#core.configure(config);
  }

  vmOf(address) {
    return this.#core.vmOf(address);
  }

  /** What becomes of a container's packet, as the kernel hands it to the core, if an inner packet to its VM may have `limit` bytes. `gsoSize` is that of a TCP super-packet. */
  outbound(packet, limit, gsoSize = 0) {
    const core = this.#core;
    const vm =
      packet.length < IPV4_LENGTH ? 0 : core.vmOf(new DataView(packet.buffer, packet.byteOffset).getUint32(16));
    if (vm !== 0) this.#hear(vm);
    if (limit !== this.#limit) core.configure({ ...this.#config, mtu: limit });
    this.#limit = limit;
    this.#put(packet, gsoSize);
    core.encapsulate(0, 1, NOW);
    const verdict = core.verdict(0);
    const messages = core.messages.count();
    if (verdict !== abi.FORWARD || messages !== 1) return { verdict, vm, messages };
    const isWhole = core.messages.isWhole(0);
    return {
      verdict,
      vm: core.messages.peer(0),
      messages,
      isWhole,
      bytes: core.messages.bytes(0).subarray(isWhole ? abi.VIRTIO_SIZE : 0),
      content: core.messages.content(0),
      tos: core.messages.tos(0),
      ttl: core.messages.ttl(0),
    };
  }

  /** All messages of the last call. */
  messages() {
    const { messages } = this.#core;
    return messages.all().map((message) => messages.bytes(message));
  }

  /** What becomes of a packet of the underlay with its outer IPv4 header: protocol 47. `merged` is what the host knows of merging. */
  inbound(packet, merged = abi.NOT_MERGED) {
    const core = this.#core;
    core.bytes.set(packet, core.slot(0));
    core.describe(0, packet.length, core.slot(0), merged);
    return this.#decapsulated(core.peer.bind(core, 0));
  }

  /** The same of a datagram of GRE-in-UDP: what is behind its UDP header. */
  datagram(payload, vm, tos) {
    const core = this.#core;
    core.bytes.set(payload, core.slot(0));
    core.describeDatagrams(0, payload.length, payload.length, vm, tos);
    this.#words[MERGED] = abi.NOT_MERGED;
    return this.#decapsulated(() => vm);
  }

  #decapsulated(peer) {
    const core = this.#core;
    const anomalies = this.#floats[ANOMALIES];
    core.decapsulate(0, 1, NOW);
    const verdict = core.verdict(0);
    if (verdict !== abi.FORWARD) return { verdict };
    const bytes = core.messages.bytes(0).subarray(abi.VIRTIO_SIZE);
    const isAnomaly = this.#floats[ANOMALIES] !== anomalies;
    return { verdict, vm: peer(), bytes, content: core.messages.content(0), isAnomaly };
  }

  #put(packet, gsoSize) {
    const core = this.#core;
    const at = core.slot(0) - abi.VIRTIO_SIZE;
    const virtio = new DataView(core.memory, at);
    core.bytes.fill(0, at, core.slot(0));
    core.bytes.set(packet, core.slot(0));
    if (gsoSize !== 0) {
      const header = (packet[0] & 15) * 4;
      virtio.setUint8(abi.VIRTIO_FLAGS, 1);
      virtio.setUint8(abi.VIRTIO_GSO_TYPE, packet[9] === 6 ? 1 : 5);
      virtio.setUint16(abi.VIRTIO_GSO_SIZE, gsoSize, true);
      virtio.setUint16(abi.VIRTIO_CHECKSUM_START, header, true);
      virtio.setUint16(abi.VIRTIO_CHECKSUM_OFFSET, packet[9] === 6 ? 16 : 6, true);
    }
    core.describe(0, packet.length + abi.VIRTIO_SIZE, at);
  }

  /** A packet has come from the VM, so that nobody needs a lease for a tunnel to it. */
  #hear(vm) {
    if (this.#heard.has(vm)) return;
    this.#heard.add(vm);
    const { local, key, mappings } = this.#config;
    for (const { overlay, overlayLength, underlay, underlayLength } of mappings) {
      const bits = underlayLength - overlayLength;
      const of = (address) => (overlay + (address - underlay) * 2 ** bits + 2) >>> 0;
      const inner = new Uint8Array(IPV4_LENGTH + UDP_LENGTH);
      inner.set([0x45, 0, 0, inner.length, 0, 0, 0, 0, 64, 17]);
      put32(inner, 12, of(vm));
      put32(inner, 16, of(local));
      put16(inner, 10, ~sum(inner, 0, IPV4_LENGTH));
      if (this.vmOf(of(vm)) === vm) this.inbound(greAround(inner, { source: vm, destination: local, key }));
    }
  }
}
