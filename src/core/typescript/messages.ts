/**
 * Messages: what the host writes, as `struct mmsghdr` for sendmmsg(2), gathered from where the bytes lie (docs/abi.md).
 * Message i has name i, control i and the iovecs from IOVS_PER_MESSAGE * i on; port p's begin with p * MESSAGES_PER_PORT.
 */
import * as abi from '../abi.ts';
import * as bytes from './bytes.ts';
import { loadU32, type Memory, storeU32 } from './bytes.ts';
import { setDevices } from './config.ts';

/** What handling a descriptor returns if there is no room for its messages: no verdict, and but for its tunnel nothing has happened. */
export const NO_ROOM = 1;

// From the kernel's headers.

/** <linux/socket.h> */
const AF_INET = 2;
/** <linux/socket.h> */
const SOL_UDP = 17;
/** <linux/udp.h> */
const UDP_SEGMENT = 103;
/** <linux/in.h> */
const IPPROTO_IP = 0;
const IP_TOS = 1;
const IP_TTL = 2;
/** Bytes in a control message that carries a u16, and in one that carries an i32: a header of 16 and the number (CMSG_LEN, cmsg(3)). */
const LENGTH_OF_U16 = 18;
const LENGTH_OF_INT = 20;

/** f64 for each port, in SCRATCH behind the flows: which way its last message goes, so that others may follow; 0 if none may. */
const WAYS = abi.SCRATCH + abi.SCRATCH_SIZE / 2;

/** Notes what the host's devices can do, and writes names, controls and messages anew: what stays the same. */
export function attach(memory: Memory, base: number, offloads: number, ports: number): void {
  setDevices(memory, base, offloads, ports);
  bytes.clear(memory, abi.NAMES, abi.NAME_SIZE * abi.ALL_MESSAGES);
  bytes.clear(memory, abi.CONTROLS, abi.CONTROL_SIZE * abi.ALL_MESSAGES);
  bytes.clear(memory, abi.MESSAGE_TABLE, abi.MESSAGE_SIZE * abi.ALL_MESSAGES);
  for (let i = 0; i < abi.ALL_MESSAGES; i++) {
    bytes.storeU16(memory, nameOf(i) + abi.NAME_FAMILY, AF_INET);
    putControl(memory, controlOf(i), LENGTH_OF_U16, SOL_UDP, UDP_SEGMENT);
    putControl(memory, controlOf(i) + abi.CONTROL_ITEM_SIZE, LENGTH_OF_INT, IPPROTO_IP, IP_TOS);
    putControl(memory, controlOf(i) + 2 * abi.CONTROL_ITEM_SIZE, LENGTH_OF_INT, IPPROTO_IP, IP_TTL);
    storePointer(memory, recordOf(i) + abi.MESSAGE_NAME, nameOf(i));
    storeU32(memory, recordOf(i) + abi.MESSAGE_NAME_LENGTH, abi.NAME_SIZE);
    storePointer(memory, recordOf(i) + abi.MESSAGE_IOV, iovOf(i, 0));
    storePointer(memory, recordOf(i) + abi.MESSAGE_CONTROL, controlOf(i));
  }
}

/** Puts the header of a control message at `p`. */
function putControl(memory: Memory, p: number, length: number, level: number, type: number): void {
  bytes.storeU64(memory, p + abi.CONTROL_LENGTH, length);
  storeU32(memory, p + abi.CONTROL_LEVEL, level);
  storeU32(memory, p + abi.CONTROL_TYPE, type);
}

/** Forgets the messages of the last call. */
export function clearMessages(memory: Memory): void {
  bytes.clear(memory, abi.MESSAGE_COUNTS, 4 * (abi.MAX_PORTS + 1));
}

/** How many messages of the port there are. */
export function messageCount(memory: Memory, port: number): number {
  return loadU32(memory, abi.MESSAGE_COUNTS + 4 * port);
}

/** The message that was opened last for the port; only if there is one. */
export function lastMessage(memory: Memory, port: number): number {
  return port * abi.MESSAGES_PER_PORT + messageCount(memory, port) - 1;
}

/** Opens the port's next message, which must be free: it is empty. */
export function openMessage(memory: Memory, port: number): number {
  storeU32(memory, abi.MESSAGE_COUNTS + 4 * port, messageCount(memory, port) + 1);
  const message = lastMessage(memory, port);
  const record = recordOf(message);
  bytes.storeU64(memory, record + abi.MESSAGE_IOV_COUNT, 0);
  bytes.storeU64(memory, record + abi.MESSAGE_CONTROL_LENGTH, 0);
  storeU32(memory, record + abi.MESSAGE_LENGTH, 0);
  bytes.clear(memory, contentOf(message), abi.CONTENT_SIZE);
  return message;
}

/** Addresses the message to a UDP port of `vm`, or to 0 where there are no such ports. */
export function nameMessage(memory: Memory, message: number, vm: number, udpPort: number): void {
  bytes.putU16(memory, nameOf(message) + abi.NAME_PORT, udpPort);
  bytes.putU32(memory, nameOf(message) + abi.NAME_ADDRESS, vm);
}

/** The VM that the outbound message is for. */
export function addressee(memory: Memory, message: number): number {
  return bytes.getU32(memory, nameOf(message) + abi.NAME_ADDRESS);
}

/** Where piece `i` of the message lies in memory, if the base address is still the one that it was made with. */
export function pieceAt(memory: Memory, message: number, i: number): number {
  const pointer = loadU32(memory, iovOf(message, i) + abi.IOV_BASE);
  return (pointer - loadU32(memory, abi.CONFIG + abi.CONFIG_BASE)) >>> 0;
}

/** Adds `length` bytes at `p`. */
export function addPiece(memory: Memory, message: number, p: number, length: number): void {
  const record = recordOf(message);
  const pieces = loadU32(memory, record + abi.MESSAGE_IOV_COUNT);
  const iov = iovOf(message, pieces);
  storePointer(memory, iov + abi.IOV_BASE, p);
  bytes.storeU64(memory, iov + abi.IOV_LENGTH, length);
  storeU32(memory, record + abi.MESSAGE_IOV_COUNT, pieces + 1);
  storeU32(memory, record + abi.MESSAGE_LENGTH, messageLength(memory, message) + length);
}

/** Notes that the message carries so many more inner packets, of `length` bytes together. */
export function addContent(memory: Memory, message: number, packets: number, length: number): void {
  storeU32(memory, contentOf(message) + abi.CONTENT_PACKETS, packetsIn(memory, message) + packets);
  storeU32(memory, contentOf(message) + abi.CONTENT_BYTES, bytesIn(memory, message) + length);
}

/** Notes where the container's packet lies that the message is made of, or begins with, and its FLAG_ bits. */
export function setOrigin(memory: Memory, message: number, p: number, flags: number): void {
  storeU32(memory, contentOf(message) + abi.CONTENT_FLAGS, flags);
  storeU32(memory, contentOf(message) + abi.CONTENT_PACKET, p);
}

/** Where the container's packet lies; 0 if the message is inbound. */
export function packetOf(memory: Memory, message: number): number {
  return loadU32(memory, contentOf(message) + abi.CONTENT_PACKET);
}

/** Bytes of the inner packets in the message. */
export function bytesIn(memory: Memory, message: number): number {
  return loadU32(memory, contentOf(message) + abi.CONTENT_BYTES);
}

/** Notes that the message carries nothing that is counted. */
export function clearContent(memory: Memory, message: number): void {
  storeU32(memory, contentOf(message) + abi.CONTENT_PACKETS, 0);
  storeU32(memory, contentOf(message) + abi.CONTENT_BYTES, 0);
}

/** Whether the last call made the message, and it is no reply. GRE-in-UDP shares the table between ports; all else is the first port's. */
export function isMessage(memory: Memory, message: number): boolean {
  if (message < 0 || message >= abi.MESSAGES) return false;
  const port = Math.floor(message / abi.MESSAGES_PER_PORT);
  return message <= lastMessage(memory, 0) || message <= lastMessage(memory, port);
}

/** Bytes in all pieces of the message. */
export function messageLength(memory: Memory, message: number): number {
  return loadU32(memory, recordOf(message) + abi.MESSAGE_LENGTH);
}

/** Inner packets in the message. */
export function packetsIn(memory: Memory, message: number): number {
  return loadU32(memory, contentOf(message) + abi.CONTENT_PACKETS);
}

/** Says what the kernel's UDP socket is to put into outer IPv4 headers. What is as the socket has it need not be said. */
export function setControl(memory: Memory, message: number, tos: number, ttl: number, hasTtl: boolean): void {
  const control = controlOf(message);
  bytes.storeU16(memory, control + abi.CONTROL_SEGMENT, 0);
  storeU32(memory, control + abi.CONTROL_TOS, tos);
  storeU32(memory, control + abi.CONTROL_TTL, ttl);
  const items = hasTtl ? 3 : tos !== 0 ? 2 : 0;
  bytes.storeU64(memory, recordOf(message) + abi.MESSAGE_CONTROL_LENGTH, items * abi.CONTROL_ITEM_SIZE);
}

/** Notes which way the port's last message goes, as one number; 0 if nothing may be added to it. */
export function setWay(memory: Memory, port: number, way: number): void {
  bytes.storeF64(memory, WAYS + 8 * port, way);
}

/** What was noted; only if there is a message. */
export function wayOf(memory: Memory, port: number): number {
  return bytes.loadF64(memory, WAYS + 8 * port);
}

/** Notes that the message has datagrams of `size` bytes each. */
export function setSegment(memory: Memory, message: number, size: number): void {
  bytes.storeU16(memory, controlOf(message) + abi.CONTROL_SEGMENT, size);
  const length = recordOf(message) + abi.MESSAGE_CONTROL_LENGTH;
  if (loadU32(memory, length) === 0) bytes.storeU64(memory, length, abi.CONTROL_ITEM_SIZE);
}

/** Bytes in each datagram of such a message but the last. */
export function segmentOf(memory: Memory, message: number): number {
  return bytes.loadU16(memory, controlOf(message) + abi.CONTROL_SEGMENT);
}

/** Stores the base address plus a place in memory: two words, and the carry from the lower to the upper. */
function storePointer(memory: Memory, p: number, place: number): void {
  const low = (loadU32(memory, abi.CONFIG + abi.CONFIG_BASE) + place) | 0;
  const carry = low >>> 0 < place ? 1 : 0;
  storeU32(memory, p, low);
  storeU32(memory, p + 4, loadU32(memory, abi.CONFIG + abi.CONFIG_BASE + 4) + carry);
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

function iovOf(message: number, i: number): number {
  return abi.IOVS + (message * abi.IOVS_PER_MESSAGE + i) * abi.IOV_SIZE;
}
