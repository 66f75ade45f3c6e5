/**
 * Messages (struct nlmsghdr, <linux/netlink.h>): what goes into a datagram and comes out of one,
 * acknowledgements included.
 */
import { SystemError } from '../system-error.ts';
import { align, attributes, type Codec, s32, struct, text, u16, u32, type Writer } from './codec.ts';

// <linux/netlink.h>
export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

const HEADER = struct(16, {
  length: [0, u32],
  type: [4, u16],
  flags: [6, u16],
  sequence: [8, u32],
  port: [12, u32],
});
const HEADER_SIZE = HEADER.size;

/** A message as it lies in a datagram. */
export interface Message {
  type: number;
  flags: number;
  sequence: number;
  /**
   * Port of the socket that sent the message, or whose request made the kernel send it. 0 is the kernel
   * itself.
   */
  port: number;
  /** The body, up to `end`. */
  view: DataView;
  start: number;
  end: number;
}

/** Something to ask of the kernel: a message whose sequence number the socket fills in. */
export interface Request {
  type: number;
  flags: number;
  /** What the request is about, such as `route 10.16.33.0/24`, for the text of an error: a function is called only then. */
  what: string | (() => string);
  /** Of a dump: an error that says that there is nothing of the kind. */
  none?: number;
  put(writer: Writer): void;
}

export function request<T, P>(
  type: number,
  flags: number,
  what: Request['what'],
  codec: Codec<T, P>,
  body: P,
): Request {
  return { type, flags, what, put: (writer) => codec.put(writer, body) };
}

/** Appends a message. */
export function putMessage(
  writer: Writer,
  { type, flags, sequence, port = 0 }: { type: number; flags: number; sequence: number; port?: number },
  put: (writer: Writer) => void,
): void {
  const at = writer.length;
  HEADER.put(writer, { length: 0, type, flags, sequence, port });
  put(writer);
  writer.view.setUint32(at, writer.length - at, true);
  writer.pad();
}

/** The messages of a datagram. Throws RangeError if one is cut short. */
export function* messagesIn(datagram: Uint8Array): Generator<Message> {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.length);
  for (let at = 0; at + HEADER_SIZE <= datagram.length; ) {
    const { length, type, flags, sequence, port } = HEADER.get(view, at, datagram.length);
    if (length < HEADER_SIZE || at + length > datagram.length)
      throw new RangeError(`a message of ${length} bytes at ${at}`);
    yield { type, flags, sequence, port, view, start: at + HEADER_SIZE, end: at + length };
    at += align(length);
  }
}

const ERROR = struct(4, { error: [0, s32] });
const EXTENDED = attributes({ text: [NLMSGERR_ATTR_MSG, text], offset: [NLMSGERR_ATTR_OFFS, u32] });

/**
 * What a message of type NLMSG_ERROR or NLMSG_DONE says: a positive errno, or 0, and the kernel's words if it
 * has any.
 */
export function acknowledgement({ type, flags, view, start, end }: Message): { errno: number; words?: string } {
  if (end - start < ERROR.size) return { errno: 0 }; // NLMSG_DONE may come without.
  const errno = Math.abs(ERROR.get(view, start, end).error);
  if (!(flags & NLM_F_ACK_TLVS)) return { errno };
  let at = start + ERROR.size;
  if (type === NLMSG_ERROR) {
    // Behind the errno comes the request, or only its header.
    const echoed = flags & NLM_F_CAPPED ? HEADER_SIZE : align(u32.get(view, at, end));
    if (echoed < HEADER_SIZE || at + echoed > end) throw new RangeError(`a request of ${echoed} bytes at ${at}`);
    at += echoed;
  }
  const words = EXTENDED.get(view, at, end).text;
  return words === undefined ? { errno } : { errno, words };
}

/** The answer that the kernel would give to a request, for a kernel in memory (tests). */
export function putAcknowledgement(writer: Writer, { type, sequence }: Message, errno: number, words?: string): void {
  const flags = NLM_F_CAPPED | (words === undefined ? 0 : NLM_F_ACK_TLVS);
  putMessage(writer, { type: NLMSG_ERROR, flags, sequence }, (w) => {
    ERROR.put(w, { error: -errno });
    HEADER.put(w, { length: HEADER_SIZE, type, flags: 0, sequence, port: 0 });
    EXTENDED.put(w, { text: words });
  });
}

/** The kernel did not do what it was asked for. */
export class NetlinkError extends SystemError {
  /** `what` is what it was asked, such as `route 10.16.33.0/24`. */
  constructor(errno: number, what: string, words?: string) {
    super('netlink', errno, words === undefined ? what : `${what}: ${words}`);
    this.name = 'NetlinkError';
  }
}
