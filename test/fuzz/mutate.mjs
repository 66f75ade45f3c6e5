/** Headers with one field or another changed to a value on the edge of something. */
import { headerEnd, TCP, UDP } from './packets.mjs';

/** Fields of each header: offset and bytes. */
export const IPV4_FIELDS = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 2],
  [6, 2],
  [8, 1],
  [9, 1],
  [10, 2],
  [12, 4],
  [16, 4],
  [20, 1],
  [21, 1],
];
const TCP_FIELDS = [
  [0, 2],
  [2, 2],
  [4, 4],
  [8, 4],
  [12, 1],
  [13, 1],
  [14, 2],
  [16, 2],
  [18, 2],
  [20, 1],
  [21, 1],
];
export const UDP_FIELDS = [
  [0, 2],
  [2, 2],
  [4, 2],
  [6, 2],
];
const OTHER_FIELDS = [
  [0, 1],
  [1, 1],
  [2, 2],
  [4, 4],
];
export const GRE_FIELDS = [
  [0, 1],
  [0, 2],
  [1, 1],
  [2, 2],
  [4, 2],
  [4, 4],
  [6, 2],
  [8, 4],
  [12, 4],
];
export const VIRTIO_FIELDS = [
  [0, 1],
  [1, 1],
  [1, 1],
  [2, 2],
  [4, 2],
  [6, 2],
  [8, 2],
];

/** Sets one of the fields of a header at `at` to a value on the edge of something. `length`: bytes of what the header is about. */
export function mutateField(bytes, at, end, fields, random, length, littleEndian = false) {
  const [offset, size] = random.pick(fields);
  const place = at + offset;
  if (place + size > end) return;
  let value = 0;
  for (let i = 0; i < size; i++) value = ((value << 8) | bytes[place + (littleEndian ? size - 1 - i : i)]) >>> 0;
  value = edge(random, value, size, length);
  for (let i = 0; i < size; i++) bytes[place + (littleEndian ? i : size - 1 - i)] = value >>> (8 * i);
}

function edge(random, value, size, length) {
  const half = 2 ** (8 * size - 1);
  switch (random.below(9)) {
    case 0:
      return 0;
    case 1:
      return 2 * half - 1 - random.below(2);
    case 2:
      return half - random.below(2);
    case 3:
      return value + random.pick([1, -1, 4, -4, 8, -8]);
    case 4:
    case 5:
      return value ^ (1 << random.below(8 * size));
    case 6:
      return length + random.pick([0, 0, 1, -1, 8, -8, 20, -20]);
    case 7:
      return random.below(32);
    default:
      return random.u32();
  }
}

/** Changes a field or two of the IPv4 or the transport header. */
export function mutatePacket(bytes, at, end, random) {
  for (let n = random.chance(70) ? 1 : 3; n > 0; n--) {
    const transport = headerEnd(bytes, at, end);
    if (random.chance(50)) mutateField(bytes, at, end, IPV4_FIELDS, random, end - at);
    else {
      const protocol = bytes[at + 9];
      const fields = protocol === TCP ? TCP_FIELDS : protocol === UDP ? UDP_FIELDS : OTHER_FIELDS;
      mutateField(bytes, transport, end, fields, random, end - transport);
    }
  }
}
