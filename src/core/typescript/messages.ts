/**
 * Messages: what the host writes, as `struct mmsghdr` for sendmmsg(2), gathered from where the bytes lie (docs/abi.md).
 * Message i has name i, control i and the iovecs from IOVS_PER_MESSAGE * i on; port p's begin with p * MESSAGES_PER_PORT.
 */
import * as abi from '../abi.ts';
import { clear, getI32, loadI32, loadU16, type Memory, putI32, putU16, storeI32, storeU16, storeU64 } from './bytes.ts';
import { hasOffload, isGreUdp } from './config.ts';

// From the kernel's headers.

/** <linux/socket.h> */
const AF_INET = 2;
/** <linux/socket.h> */
const SOL_UDP = 17;
/** <linux/udp.h> */
const UDP_SEGMENT = 103;
/** Bytes in UDP_SEGMENT's control message: a header of 16 and a u16; CMSG_LEN and CMSG_SPACE (cmsg(3)). */
const CONTROL_BYTES = 18;
const CONTROL_SPACE = 24;
/** The most that one sendmsg(2) can take for UDP over IPv4: 65,535 less 20 and 8. */
const MAX_UDP_PAYLOAD = 65507;

// Once: what stays the same.

/** Writes names, controls and messages anew. The base address must be in the configuration by now. */
export function writeMessages(memory: Memory): void {
  clear(memory, abi.NAMES, abi.NAME_SIZE * abi.MESSAGES);
  clear(memory, abi.CONTROLS, abi.CONTROL_SIZE * abi.MESSAGES);
  clear(memory, abi.MESSAGE_TABLE, abi.MESSAGE_SIZE * abi.MESSAGES);
  for (let i = 0; i < abi.MESSAGES; i++) {
    storeU16(memory, nameOf(i) + abi.NAME_FAMILY, AF_INET);
    storeU64(memory, controlOf(i) + abi.CONTROL_LENGTH, CONTROL_BYTES);
    storeI32(memory, controlOf(i) + abi.CONTROL_LEVEL, SOL_UDP);
    storeI32(memory, controlOf(i) + abi.CONTROL_TYPE, UDP_SEGMENT);
    storePointer(memory, recordOf(i) + abi.MESSAGE_NAME, nameOf(i));
    storeI32(memory, recordOf(i) + abi.MESSAGE_NAME_LENGTH, abi.NAME_SIZE);
    storePointer(memory, recordOf(i) + abi.MESSAGE_IOV, iovsOf(i));
    storePointer(memory, recordOf(i) + abi.MESSAGE_CONTROL, controlOf(i));
  }
}

// Each call begins with no messages.

/** Forgets the messages of the last call. */
export function clearMessages(memory: Memory): void {
  clear(memory, abi.MESSAGE_COUNTS, 4 * abi.MAX_PORTS);
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
  clear(memory, cargoOf(message), abi.CARGO_SIZE);
  return message;
}

/**
 * The message for a datagram of `length` bytes to `vm`: the last of the port if UDP_SEGMENT divides that into the same
 * datagrams again, else a new one. The datagram's pieces and cargo are to be added next.
 */
export function messageFor(memory: Memory, port: number, vm: number, length: number): number {
  const isUdp = isGreUdp(memory);
  if (isUdp && messageCount(memory, port) !== 0 && hasOffload(memory, abi.OFFLOAD_UDP_SEGMENT)) {
    const last = nextMessage(memory, port) - 1;
    if (joins(memory, last, vm, length)) return last;
  }
  const message = openMessage(memory, port);
  putU16(memory, nameOf(message) + abi.NAME_PORT, isUdp ? abi.GRE_UDP_PORT : 0);
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
export function addCargo(memory: Memory, message: number, packets: number, bytes: number): void {
  const cargo = cargoOf(message);
  storeI32(memory, cargo + abi.CARGO_PACKETS, loadI32(memory, cargo + abi.CARGO_PACKETS) + packets);
  storeI32(memory, cargo + abi.CARGO_BYTES, loadI32(memory, cargo + abi.CARGO_BYTES) + bytes);
}

/** Notes that the message is a super-packet for the overlay device. */
export function markWhole(memory: Memory, message: number): void {
  storeI32(memory, cargoOf(message) + abi.CARGO_WHOLE, 1);
}

/**
 * Whether a datagram can follow those in the message, and if so, notes that it has several. The kernel cuts at multiples
 * of the first one's length, so only the last may be shorter (udp(7), UDP_SEGMENT).
 */
function joins(memory: Memory, message: number, vm: number, length: number): boolean {
  const record = recordOf(message);
  const packets = loadI32(memory, cargoOf(message) + abi.CARGO_PACKETS);
  const sent = loadI32(memory, record + abi.MESSAGE_LENGTH);
  const segment = packets === 1 ? sent : loadU16(memory, controlOf(message) + abi.CONTROL_SEGMENT);
  if (packets >= abi.PACKETS_PER_MESSAGE || sent !== packets * segment) return false;
  if (length > segment || sent + length > MAX_UDP_PAYLOAD) return false;
  if (getI32(memory, nameOf(message) + abi.NAME_ADDRESS) !== vm) return false;
  if (packets === 1) {
    storeU16(memory, controlOf(message) + abi.CONTROL_SEGMENT, segment);
    storeI32(memory, record + abi.MESSAGE_CONTROL_LENGTH, CONTROL_SPACE);
  }
  return true;
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

function cargoOf(message: number): number {
  return abi.CARGOS + message * abi.CARGO_SIZE;
}

function iovsOf(message: number): number {
  return abi.IOVS + message * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE;
}
