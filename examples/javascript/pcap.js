/** Classic pcap files (draft-ietf-opsawg-pcap): reading and writing them in memory, with nothing but typed arrays. */

const MAGIC = 0xa1b2c3d4;
const FILE_HEADER = 24;
const PACKET_HEADER = 16;
const SNAP_LENGTH = 65535;
/** What libpcap takes for the longest packet (MAXIMUM_SNAPLEN). */
const MOST_BYTES = 262144;

/** Link types: IPv4 or IPv6, IPv4, and Ethernet. */
const [RAW, IPV4, ETHERNET] = [101, 228, 1];
const ETHERNET_HEADER = 14;
const ETHERTYPE_IPV4 = 0x0800;

/**
 * @typedef {object} Packet
 * @property {number} seconds of its time stamp
 * @property {number} microseconds of its time stamp
 * @property {Uint8Array} bytes from the IPv4 header on; a view of the file
 */

/**
 * The packets of a file, in order; what is not IPv4 in an Ethernet frame is left out. Throws if the file is damaged.
 * @param {Uint8Array} file
 * @param {string} name what errors call it
 * @returns {Generator<Packet>}
 */
export function* readPcap(file, name = 'the pcap') {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < FILE_HEADER) throw new Error(`${name}: the file ends in its header`);
  const isLittle = view.getUint32(0, true) === MAGIC;
  if (!isLittle && view.getUint32(0) !== MAGIC) throw new Error(`${name}: not a pcap file with microseconds`);
  const link = view.getUint32(20, isLittle);
  if (![RAW, IPV4, ETHERNET].includes(link)) throw new Error(`${name}: link type ${link}: expected 1, 101 or 228`);

  for (let at = FILE_HEADER, number = 1; at < file.length; number++) {
    if (file.length - at < PACKET_HEADER) throw new Error(`${name}: the file ends in packet ${number}`);
    const length = view.getUint32(at + 8, isLittle);
    const start = at + PACKET_HEADER;
    if (length > MOST_BYTES) {
      throw new Error(`${name}: packet ${number}: ${length} bytes: expected at most ${MOST_BYTES}`);
    }
    if (file.length - start < length) throw new Error(`${name}: the file ends in packet ${number}`);
    const bytes = payloadOf(link, file.subarray(start, start + length));
    if (bytes) yield { seconds: view.getUint32(at, isLittle), microseconds: view.getUint32(at + 4, isLittle), bytes };
    at = start + length;
  }
}

/**
 * What a frame carries; undefined if that is not IPv4.
 * @param {number} link
 * @param {Uint8Array} frame
 */
function payloadOf(link, frame) {
  if (link !== ETHERNET) return frame;
  const [high = 0, low = 0] = frame.subarray(ETHERNET_HEADER - 2);
  return ((high << 8) | low) === ETHERTYPE_IPV4 ? frame.subarray(ETHERNET_HEADER) : undefined;
}

/** A file of link type 101, to which packets are added one by one. */
export class PcapWriter {
  #file = new Uint8Array(1 << 16);
  #view = new DataView(this.#file.buffer);
  #length = FILE_HEADER;

  constructor() {
    this.#view.setUint32(0, MAGIC, true);
    this.#view.setUint16(4, 2, true);
    this.#view.setUint16(6, 4, true);
    this.#view.setUint32(16, SNAP_LENGTH, true);
    this.#view.setUint32(20, RAW, true);
  }

  /**
   * Adds a packet with the time stamp of `time`.
   * @param {Packet} time
   * @param {Uint8Array} bytes
   */
  add({ seconds, microseconds }, bytes) {
    const at = this.#length;
    this.#length += PACKET_HEADER + bytes.length;
    if (this.#length > this.#file.length) this.#grow();
    this.#view.setUint32(at, seconds, true);
    this.#view.setUint32(at + 4, microseconds, true);
    this.#view.setUint32(at + 8, bytes.length, true);
    this.#view.setUint32(at + 12, bytes.length, true);
    this.#file.set(bytes, at + PACKET_HEADER);
  }

  #grow() {
    const file = new Uint8Array(2 * this.#length);
    file.set(this.#file);
    this.#file = file;
    this.#view = new DataView(file.buffer);
  }

  /** The file so far; a view that is good until the next packet is added. */
  get bytes() {
    return this.#file.subarray(0, this.#length);
  }
}
