/**
 * Messages: what the host is to write, each gathered from where its bytes lie, as sendmmsg(2) takes them.
 *
 * Everything has its fixed place, so the pointers are stored once; a packet costs its iovecs, a length and two counts.
 */
import {
  ALL_MESSAGES,
  CONFIG,
  CONFIG_BASE,
  CONTENT_BYTES,
  CONTENT_FLAGS,
  CONTENT_PACKET,
  CONTENT_PACKETS,
  CONTENT_SIZE,
  CONTENTS,
  CONTROL_ITEM_SIZE,
  CONTROL_LENGTH,
  CONTROL_LEVEL,
  CONTROL_SEGMENT,
  CONTROL_SIZE,
  CONTROL_TOS,
  CONTROL_TTL,
  CONTROL_TYPE,
  CONTROLS,
  IOV_BASE,
  IOV_LENGTH,
  IOV_SIZE,
  IOVS,
  IOVS_PER_MESSAGE,
  MAX_PORTS,
  MESSAGE_CONTROL,
  MESSAGE_CONTROL_LENGTH,
  MESSAGE_COUNTS,
  MESSAGE_IOV,
  MESSAGE_IOV_COUNT,
  MESSAGE_LENGTH,
  MESSAGE_NAME,
  MESSAGE_NAME_LENGTH,
  MESSAGE_SIZE,
  MESSAGE_TABLE,
  MESSAGES,
  MESSAGES_PER_PORT,
  NAME_ADDRESS,
  NAME_FAMILY,
  NAME_PORT,
  NAME_SIZE,
  NAMES,
  SCRATCH,
  SCRATCH_SIZE,
} from '../src/core/abi';
import { getU32 } from './bytes';
import { setDevices } from './config';

/** Answered instead of a verdict if there is no room for a packet's messages; but for its tunnel, nothing has happened then. */
export const NO_ROOM: i32 = 1;

// <linux/socket.h>, <linux/udp.h>, <linux/in.h>
const AF_INET: u16 = 2;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const IPPROTO_IP: i32 = 0;
const IP_TOS: i32 = 1;
const IP_TTL: i32 = 2;
/** CMSG_LEN of a u16 and of an int (cmsg(3)); CMSG_SPACE of both is CONTROL_ITEM_SIZE. */
const LENGTH_OF_U16: u64 = 18;
const LENGTH_OF_INT: u64 = 20;

/** During one call, the way of each port's last message: u64. Not where flows are: these have to be 0 between calls. */
const WAYS: usize = SCRATCH + SCRATCH_SIZE / 2;

/** Notes what the host's devices can do, and writes what stays the same in all messages. */
export function attach(base: f64, offloads: i32, ports: i32): void {
  setDevices(<u64>base, offloads, ports);
  memory.fill(NAMES, 0, NAME_SIZE * ALL_MESSAGES);
  memory.fill(CONTROLS, 0, CONTROL_SIZE * ALL_MESSAGES);
  memory.fill(MESSAGE_TABLE, 0, MESSAGE_SIZE * ALL_MESSAGES);
  for (let i = 0; i < ALL_MESSAGES; i++) {
    const m = table(i);
    store<u64>(m + MESSAGE_NAME, pointer(name(i)));
    store<u32>(m + MESSAGE_NAME_LENGTH, NAME_SIZE);
    store<u64>(m + MESSAGE_IOV, pointer(iov(i, 0)));
    store<u64>(m + MESSAGE_CONTROL, pointer(control(i)));
    store<u16>(name(i) + NAME_FAMILY, AF_INET);
    putControl(control(i), LENGTH_OF_U16, SOL_UDP, UDP_SEGMENT);
    putControl(control(i) + CONTROL_ITEM_SIZE, LENGTH_OF_INT, IPPROTO_IP, IP_TOS);
    putControl(control(i) + 2 * CONTROL_ITEM_SIZE, LENGTH_OF_INT, IPPROTO_IP, IP_TTL);
  }
}

function putControl(c: usize, length: u64, level: i32, type: i32): void {
  store<u64>(c + CONTROL_LENGTH, length);
  store<i32>(c + CONTROL_LEVEL, level);
  store<i32>(c + CONTROL_TYPE, type);
}

/** Forgets the messages of the call before. */
export function clearMessages(): void {
  memory.fill(MESSAGE_COUNTS, 0, 4 * (MAX_PORTS + 1));
}

export function messageCount(port: i32): i32 {
  return load<i32>(MESSAGE_COUNTS + 4 * port);
}

/** The message that was opened last for `port`; only if there is one. */
export function lastMessage(port: i32): i32 {
  return port * MESSAGES_PER_PORT + messageCount(port) - 1;
}

/** Opens a message for `port`, which still needs its first piece and its content. Whether there is room has been seen before. */
export function openMessage(port: i32): i32 {
  const count = messageCount(port);
  const message = port * MESSAGES_PER_PORT + count;
  store<i32>(MESSAGE_COUNTS + 4 * port, count + 1);
  return message;
}

/** Addresses a message; both numbers as they lie in memory, in network order. */
export function nameMessage(message: i32, vm: u32, port: u16): void {
  store<u16>(name(message) + NAME_PORT, port);
  store<u32>(name(message) + NAME_ADDRESS, vm);
}

/** The VM that a message goes to. */
export function addressee(message: i32): u32 {
  return getU32(name(message) + NAME_ADDRESS);
}

/** Where the bytes of piece `i` lie in this memory. */
export function pieceAt(message: i32, i: i32): u32 {
  return <u32>(load<u64>(iov(message, i) + IOV_BASE) - base());
}

/** Begins a message with `length` bytes at `p`; it has no control messages yet. */
export function setPiece(message: i32, p: usize, length: i32): void {
  const m = table(message);
  store<u64>(iov(message, 0) + IOV_BASE, pointer(p));
  store<u64>(iov(message, 0) + IOV_LENGTH, <u64>length);
  store<u64>(m + MESSAGE_IOV_COUNT, 1);
  store<u64>(m + MESSAGE_CONTROL_LENGTH, 0);
  store<i32>(m + MESSAGE_LENGTH, length);
}

/** Adds `length` bytes at `p`. */
export function addPiece(message: i32, p: usize, length: i32): void {
  const m = table(message);
  const count = load<i32>(m + MESSAGE_IOV_COUNT);
  store<u64>(iov(message, count) + IOV_BASE, pointer(p));
  store<u64>(iov(message, count) + IOV_LENGTH, <u64>length);
  store<i32>(m + MESSAGE_IOV_COUNT, count + 1);
  store<i32>(m + MESSAGE_LENGTH, messageLength(message) + length);
}

/** Notes that a message carries `packets` packets more, together of `bytes` bytes. */
export function addContent(message: i32, packets: i32, bytes: i32): void {
  store<i32>(content(message) + CONTENT_PACKETS, packetsIn(message) + packets);
  store<i32>(content(message) + CONTENT_BYTES, bytesIn(message) + bytes);
}

/** Notes what a message carries: `packets` packets, together of `bytes` bytes, made of the container's packet at `p` (0 if it is inbound); and its FLAG_ bits. */
export function setContent(message: i32, packets: i32, bytes: i32, p: usize, flags: u32): void {
  store<i32>(content(message) + CONTENT_PACKETS, packets);
  store<i32>(content(message) + CONTENT_BYTES, bytes);
  store<u32>(content(message) + CONTENT_FLAGS, flags);
  store<u32>(content(message) + CONTENT_PACKET, <u32>p);
}

/** What was noted; 0 for an inbound message. */
export function packetOf(message: i32): usize {
  return load<u32>(content(message) + CONTENT_PACKET);
}

/** Bytes of the packets in a message. */
export function bytesIn(message: i32): i32 {
  return load<i32>(content(message) + CONTENT_BYTES);
}

/** Forgets which packets a message carries. */
export function clearContent(message: i32): void {
  store<u64>(content(message) + CONTENT_PACKETS, 0);
}

/** Whether the last call made this message, and it is no reply. */
export function isMessage(message: i32): bool {
  if (message < 0 || message >= MESSAGES) return false;
  return message < messageCount(0) || message % MESSAGES_PER_PORT < messageCount(message / MESSAGES_PER_PORT);
}

/** Bytes in a message. */
export function messageLength(message: i32): i32 {
  return load<i32>(table(message) + MESSAGE_LENGTH);
}

/** Packets in a message. */
export function packetsIn(message: i32): i32 {
  return load<i32>(content(message) + CONTENT_PACKETS);
}

/** Says what the kernel's UDP socket is to put into the outer IPv4 headers of a message: `ttl` only if it is not what the socket has. */
export function setControl(message: i32, tos: u32, ttl: u32, hasTtl: bool): void {
  store<u16>(control(message) + CONTROL_SEGMENT, 0);
  store<u32>(control(message) + CONTROL_TOS, tos);
  store<u32>(control(message) + CONTROL_TTL, ttl);
  const items = hasTtl ? 3 : tos !== 0 ? 2 : 0;
  store<u64>(table(message) + MESSAGE_CONTROL_LENGTH, <u64>(items * CONTROL_ITEM_SIZE));
}

/** Notes to whom the last message of `port` goes, and how; 0 if it takes no other datagram. */
export function setWay(port: i32, way: u64): void {
  store<u64>(WAYS + 8 * port, way);
}

/** What was noted; only if there is a message. */
export function wayOf(port: i32): u64 {
  return load<u64>(WAYS + 8 * port);
}

/** Makes a message one of datagrams of `size` bytes each. */
export function setSegment(message: i32, size: i32): void {
  store<u16>(control(message) + CONTROL_SEGMENT, <u16>size);
  const length = table(message) + MESSAGE_CONTROL_LENGTH;
  if (load<u64>(length) === 0) store<u64>(length, CONTROL_ITEM_SIZE);
}

/** Bytes of each datagram of such a message but the last. */
export function segmentOf(message: i32): i32 {
  return <i32>load<u16>(control(message) + CONTROL_SEGMENT);
}

/** Address of this memory in the host's process. */
function base(): u64 {
  return load<u64>(CONFIG + CONFIG_BASE);
}

/** What the host's kernel calls the place `p`. */
function pointer(p: usize): u64 {
  return base() + <u64>p;
}

function table(message: i32): usize {
  return <usize>(MESSAGE_TABLE + message * MESSAGE_SIZE);
}

function name(message: i32): usize {
  return <usize>(NAMES + message * NAME_SIZE);
}

function control(message: i32): usize {
  return <usize>(CONTROLS + message * CONTROL_SIZE);
}

function content(message: i32): usize {
  return <usize>(CONTENTS + message * CONTENT_SIZE);
}

function iov(message: i32, i: i32): usize {
  return <usize>(IOVS + (message * IOVS_PER_MESSAGE + i) * IOV_SIZE);
}
