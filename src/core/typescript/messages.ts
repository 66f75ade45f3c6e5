/**
 * Messages: what the host writes, as `struct mmsghdr` for sendmmsg(2), gathered from where the bytes lie (docs/abi.md).
 * Message i has name i, control i and the iovecs from IOVS_PER_MESSAGE * i on; port p's begin with p * MESSAGES_PER_PORT.
 */
import * as abi from '../abi.ts';
import { clear, getI32, loadI32, loadU16, type Memory, putI32, putU16, storeI32, storeU16, storeU64 } from './bytes.ts';
import { configuredOptions, hasOffload, isGreUdp } from './config.ts';

// From the kernel's headers.

/** <linux/socket.h> */
const AF_INET = 2;
/** <linux/socket.h> */
const SOL_UDP = 17;
/** <linux/in.h> */
const IPPROTO_IP = 0;
/** <linux/udp.h> */
const UDP_SEGMENT = 103;
/** <linux/in.h> */
const IP_TOS = 1;
const IP_TTL = 2;
/** Bytes in a control message that carries a u16, and in one that carries an i32: a header of 16 and the number (CMSG_LEN, cmsg(3)). */
const U16_BYTES = 18;
const I32_BYTES = 20;
/** The most that one sendmsg(2) can take for UDP over IPv4: 65,535 less 20 and 8. */
export const MAX_UDP_PAYLOAD = 65507;

// From this implementation.

/** u32, in SCRATCH behind what blocks.ts has there: bit p is set if the last message of port p is a fragment, to which nothing is added. */
const FRAGMENTS = abi.SCRATCH + 4;

// Once: what stays the same.

/** Writes names, controls and messages anew. The base address must be in the configuration by now. */
export function writeMessages(memory: Memory): void {
  clear(memory, abi.NAMES, abi.NAME_SIZE * abi.ALL_MESSAGES);
  clear(memory, abi.CONTROLS, abi.CONTROL_SIZE * abi.ALL_MESSAGES);
  clear(memory, abi.MESSAGE_TABLE, abi.MESSAGE_SIZE * abi.ALL_MESSAGES);
  for (let i = 0; i < abi.ALL_MESSAGES; i++) {
    storeU16(memory, nameOf(i) + abi.NAME_FAMILY, AF_INET);
    putControl(memory, controlOf(i), U16_BYTES, SOL_UDP, UDP_SEGMENT);
    putControl(memory, controlOf(i) + abi.CONTROL_ITEM_SIZE, I32_BYTES, IPPROTO_IP, IP_TOS);
    putControl(memory, controlOf(i) + 2 * abi.CONTROL_ITEM_SIZE, I32_BYTES, IPPROTO_IP, IP_TTL);
    storePointer(memory, recordOf(i) + abi.MESSAGE_NAME, nameOf(i));
    storeI32(memory, recordOf(i) + abi.MESSAGE_NAME_LENGTH, abi.NAME_SIZE);
    storePointer(memory, recordOf(i) + abi.MESSAGE_IOV, iovsOf(i));
    storePointer(memory, recordOf(i) + abi.MESSAGE_CONTROL, controlOf(i));
  }
}

/** Puts the header of a control message at `p`. */
function putControl(memory: Memory, p: number, length: number, level: number, type: number): void {
  storeU64(memory, p + abi.CONTROL_LENGTH, length);
  storeI32(memory, p + abi.CONTROL_LEVEL, level);
  storeI32(memory, p + abi.CONTROL_TYPE, type);
}

// Each call begins with no messages.

/** Forgets the messages of the last call. */
export function clearMessages(memory: Memory): void {
  clear(memory, abi.MESSAGE_COUNTS, 4 * (abi.MAX_PORTS + 1));
  storeI32(memory, FRAGMENTS, 0);
}

/** How many messages can still be opened for the port. `isShared` says whether the table is shared between ports. */
export function freeMessages(memory: Memory, port: number, isShared: boolean): number {
  return (isShared ? abi.MESSAGES_PER_PORT : abi.MESSAGES) - messageCount(memory, port);
}

/** The message that `openMessage` would open next. There may be no such. */
export function nextMessage(memory: Memory, port: number): number {
  return port * abi.MESSAGES_PER_PORT + messageCount(memory, port);
}

/** Opens the port's next message, which must be free: it is empty. */
export function openMessage(memory: Memory, port: number): number {
  const message = nextMessage(memory, port);
  storeI32(memory, abi.MESSAGE_COUNTS + 4 * port, messageCount(memory, port) + 1);
  storeI32(memory, recordOf(message) + abi.MESSAGE_IOV_COUNT, 0);
  storeI32(memory, recordOf(message) + abi.MESSAGE_CONTROL_LENGTH, 0);
  storeI32(memory, recordOf(message) + abi.MESSAGE_LENGTH, 0);
  clear(memory, contentOf(message), abi.CONTENT_SIZE);
  return message;
}

/**
 * The message for a datagram of `length` bytes to `vm`: the last of the port if UDP_SEGMENT divides that into the same
 * datagrams again, else a new one. The datagram's pieces and content are to be added next.
 */
export function messageFor(memory: Memory, port: number, vm: number, tos: number, ttl: number, length: number): number {
  if (!isGreUdp(memory)) return openNamed(memory, port, vm, 0);
  return messageForDatagram(memory, port, vm, tos, ttl, length);
}

/** As `messageFor`, of GRE-in-UDP. */
function messageForDatagram(
  memory: Memory,
  port: number,
  vm: number,
  tos: number,
  ttl: number,
  length: number,
): number {
  if (messageCount(memory, port) !== 0 && hasOffload(memory, abi.OFFLOAD_UDP_SEGMENT)) {
    const last = nextMessage(memory, port) - 1;
    if (!endsWithFragment(memory, port) && joins(memory, last, vm, tos, ttl, length)) return last;
  }
  return openDatagram(memory, port, vm, tos, ttl);
}

/** The message for a fragment to `vm`, which it alone is in. */
export function messageForFragment(memory: Memory, port: number, vm: number, tos: number, ttl: number): number {
  if (!isGreUdp(memory)) return openNamed(memory, port, vm, 0);
  const message = openDatagram(memory, port, vm, tos, ttl);
  storeI32(memory, FRAGMENTS, loadI32(memory, FRAGMENTS) | (1 << port));
  return message;
}

/** Opens the port's next message for a datagram of GRE-in-UDP. Its outer headers are the kernel's: TOS and TTL go with it. */
function openDatagram(memory: Memory, port: number, vm: number, tos: number, ttl: number): number {
  const message = openNamed(memory, port, vm, abi.GRE_UDP_PORT);
  storeI32(memory, FRAGMENTS, loadI32(memory, FRAGMENTS) & ~(1 << port));
  const control = controlOf(message);
  storeU16(memory, control + abi.CONTROL_SEGMENT, 0);
  storeI32(memory, control + abi.CONTROL_TOS, tos);
  storeI32(memory, control + abi.CONTROL_TTL, ttl);
  // What is as the socket has it need not be said.
  const isInherited = (configuredOptions(memory) & abi.OPTION_TTL_INHERIT) !== 0;
  const items = isInherited ? 3 : tos !== 0 ? 2 : 0;
  storeI32(memory, recordOf(message) + abi.MESSAGE_CONTROL_LENGTH, items * abi.CONTROL_ITEM_SIZE);
  return message;
}

/** Opens the port's next message for what goes to a UDP port of `vm`, or 0 where there are no such ports. */
function openNamed(memory: Memory, port: number, vm: number, udpPort: number): number {
  const message = openMessage(memory, port);
  putU16(memory, nameOf(message) + abi.NAME_PORT, udpPort);
  putI32(memory, nameOf(message) + abi.NAME_ADDRESS, vm);
  return message;
}

/** Adds `length` bytes at `from`, a place in memory. */
export function addPiece(memory: Memory, message: number, from: number, length: number): void {
  const record = recordOf(message);
  const pieces = loadI32(memory, record + abi.MESSAGE_IOV_COUNT);
  const iov = iovsOf(message) + pieces * abi.IOV_SIZE;
  storePointer(memory, iov + abi.IOV_BASE, from);
  storeU64(memory, iov + abi.IOV_LENGTH, length);
  storeI32(memory, record + abi.MESSAGE_IOV_COUNT, pieces + 1);
  storeI32(memory, record + abi.MESSAGE_LENGTH, loadI32(memory, record + abi.MESSAGE_LENGTH) + length);
}

/** Notes that the message carries so many more inner packets, of `bytes` bytes together. */
export function addContent(memory: Memory, message: number, packets: number, bytes: number): void {
  const content = contentOf(message);
  storeI32(memory, content + abi.CONTENT_PACKETS, loadI32(memory, content + abi.CONTENT_PACKETS) + packets);
  storeI32(memory, content + abi.CONTENT_BYTES, loadI32(memory, content + abi.CONTENT_BYTES) + bytes);
}

/**
 * Notes that the messages `first` to `end` - 1 are made of the container's packet at `inner`, or begin with it; and, if
 * `isUnheard`, that they go to a VM that nothing was heard of.
 */
export function notePacket(memory: Memory, first: number, end: number, inner: number, isUnheard: boolean): void {
  for (let message = first; message < end; message++) {
    storeI32(memory, contentOf(message) + abi.CONTENT_PACKET, inner);
    if (isUnheard) flag(memory, message, abi.FLAG_UNHEARD);
  }
}

/** Whether the last call made the message, and it is no reply. GRE-in-UDP shares the table between ports; all else is the first port's. */
export function isMessage(memory: Memory, message: number): boolean {
  if (message < 0 || message >= abi.MESSAGES) return false;
  const port = Math.floor(message / abi.MESSAGES_PER_PORT);
  return message < nextMessage(memory, 0) || message < nextMessage(memory, port);
}

/** What the message carries, and where the container's packet lies that it is made of: 0 if it is inbound. */
export function contentIn(memory: Memory, message: number): { packets: number; bytes: number; inner: number } {
  const content = contentOf(message);
  return {
    packets: loadI32(memory, content + abi.CONTENT_PACKETS),
    bytes: loadI32(memory, content + abi.CONTENT_BYTES),
    inner: loadI32(memory, content + abi.CONTENT_PACKET),
  };
}

/** Notes that the message carries nothing that is counted. */
export function forgetContent(memory: Memory, message: number): void {
  storeI32(memory, contentOf(message) + abi.CONTENT_PACKETS, 0);
  storeI32(memory, contentOf(message) + abi.CONTENT_BYTES, 0);
}

/** The VM that the outbound message is for, a signed number. */
export function receiverOf(memory: Memory, message: number): number {
  return getI32(memory, nameOf(message) + abi.NAME_ADDRESS);
}

/** Where the piece of the message lies in memory, if the base address is still the one that it was made with; unsigned. */
export function placeOf(memory: Memory, message: number, piece: number): number {
  const pointer = loadI32(memory, iovsOf(message) + piece * abi.IOV_SIZE + abi.IOV_BASE);
  return (pointer - loadI32(memory, abi.CONFIG + abi.CONFIG_BASE)) >>> 0;
}

/** Notes that the message is a super-packet for the overlay device. */
export function markWhole(memory: Memory, message: number): void {
  flag(memory, message, abi.FLAG_WHOLE);
}

function flag(memory: Memory, message: number, bit: number): void {
  const flags = contentOf(message) + abi.CONTENT_FLAGS;
  storeI32(memory, flags, loadI32(memory, flags) | bit);
}

/**
 * Whether a datagram can follow those in the message, and if so, notes that it has several. The kernel cuts at multiples
 * of the first one's length, so only the last may be shorter (udp(7), UDP_SEGMENT).
 */
function joins(memory: Memory, message: number, vm: number, tos: number, ttl: number, length: number): boolean {
  const record = recordOf(message);
  const packets = loadI32(memory, contentOf(message) + abi.CONTENT_PACKETS);
  const sent = loadI32(memory, record + abi.MESSAGE_LENGTH);
  const control = controlOf(message);
  const segment = packets === 1 ? sent : loadU16(memory, control + abi.CONTROL_SEGMENT);
  if (packets >= abi.PACKETS_PER_MESSAGE || sent !== packets * segment) return false;
  if (length > segment || sent + length > MAX_UDP_PAYLOAD) return false;
  if (receiverOf(memory, message) !== vm) return false;
  if (loadI32(memory, control + abi.CONTROL_TOS) !== tos || loadI32(memory, control + abi.CONTROL_TTL) !== ttl)
    return false;
  if (packets === 1) {
    storeU16(memory, control + abi.CONTROL_SEGMENT, segment);
    const length = record + abi.MESSAGE_CONTROL_LENGTH;
    if (loadI32(memory, length) === 0) storeI32(memory, length, abi.CONTROL_ITEM_SIZE);
  }
  return true;
}

/** Whether the port's last message is a fragment. */
function endsWithFragment(memory: Memory, port: number): boolean {
  return (loadI32(memory, FRAGMENTS) & (1 << port)) !== 0;
}

function messageCount(memory: Memory, port: number): number {
  return loadI32(memory, abi.MESSAGE_COUNTS + 4 * port);
}

/** Stores the base address plus a place in memory: two words, and the carry from the lower to the upper. */
function storePointer(memory: Memory, p: number, place: number): void {
  const low = (loadI32(memory, abi.CONFIG + abi.CONFIG_BASE) + place) | 0;
  const carry = low >>> 0 < place ? 1 : 0;
  storeI32(memory, p, low);
  storeI32(memory, p + 4, loadI32(memory, abi.CONFIG + abi.CONFIG_BASE + 4) + carry);
}

// Places of what belongs to a message.

function recordOf(message: number): number {
  return abi.MESSAGE_TABLE + message * abi.MESSAGE_SIZE;
}

function nameOf(message: number): number {
  return abi.NAMES + message * abi.NAME_SIZE;
}

function controlOf(message: number): number {
  return abi.CONTROLS + message * abi.CONTROL_SIZE;
}

function contentOf(message: number): number {
  return abi.CONTENTS + message * abi.CONTENT_SIZE;
}

function iovsOf(message: number): number {
  return abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE;
}
