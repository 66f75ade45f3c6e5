/**
 * The tables of iptables-legacy (<linux/netfilter_ipv4/ip_tables.h>): one piece of memory each, in which a
 * chain is known by where it begins.
 */
import { errorCode } from '../../errors.ts';
import * as native from '../native.ts';
import { NF_ACCEPT, NF_DROP } from '../netlink/nf-tables.ts';
import { loadedModules, readIfExists } from '../proc.ts';
import { type Action, type BaseChain, type Rule, TooLargeError } from './fate.ts';
import { type Answer, addressBits, answerOf, both, equals, nameBits, not, type Packet } from './packet.ts';
import { actionOf, type Extension, matches, remembers } from './xtables.ts';

/**
 * Tables in this network namespace, one a line; missing without the module. Only for them may be asked: the
 * kernel makes a table that it is asked for.
 */
const TABLES = '/proc/net/ip_tables_names';
/** Bytes of a table that are read, at most. */
const MAX_SIZE = 1 << 20;

// Options of getsockopt(2), and where things are in struct ipt_getinfo and struct ipt_get_entries.
const IPT_SO_GET_INFO = 64;
const IPT_SO_GET_ENTRIES = 65;
const NAME_SIZE = 32;
const INFO = { size: 84, hookEntry: 36, underflow: 56, bytes: 80 } as const;
const ENTRIES_HEADER = 40;
// struct ipt_entry, which begins with struct ipt_ip, and struct xt_entry_match, which struct xt_entry_target
// is like.
const ENTRY = {
  ...{ source: 0, destination: 4, sourceMask: 8, destinationMask: 12, in: 16, out: 32, inMask: 48, outMask: 64 },
  ...{ protocol: 80, flags: 82, inverted: 83, target: 88, next: 90, counters: 96, size: 112 },
} as const;
/** struct xt_error_target up to its name: what stands before the chains that somebody has made. */
const CHAIN_HEAD = `ERROR${'\0'.repeat(25)}`;
const EXTENSION = { name: 2, revision: 31, data: 32 } as const;
const IPT_F_FRAG = 0x01;
const IPT_F_GOTO = 0x02;
const INVERTED = { in: 0x01, out: 0x02, source: 0x08, destination: 0x10, fragment: 0x20, protocol: 0x40 } as const;
/** XT_RETURN; the other verdicts below 0 are those of netfilter, -1 - verdict. */
const XT_RETURN = -5;

/** The names of the tables. Empty if there are none. Only root may read them; for others it is enough that no module for a table is loaded. */
export function legacyTables(): string[] {
  try {
    return readIfExists(TABLES).split('\n').filter(Boolean);
  } catch (error) {
    const modules = loadedModules();
    if (errorCode(error) === 'EACCES' && modules !== '' && !/^iptable_/m.test(modules)) return [];
    throw error;
  }
}

/** A table as the kernel gives it: struct ipt_getinfo, and all entries, but without what they have counted. */
export interface LegacyTable {
  info: Uint8Array;
  entries: Uint8Array;
}

/**
 * Reads a table. It is the same, byte for byte, until its rules change. nf_getsockopt in the kernel takes any
 * socket of IPv4. Throws TooLargeError.
 */
export function readLegacyTable(table: string): LegacyTable {
  const type = native.SOCK_DGRAM | native.SOCK_CLOEXEC;
  const fd = native.must(native.socket(native.AF_INET, type, 0), 'socket', 'for the tables of iptables');
  const ask = (option: number, into: Uint8Array) => {
    new TextEncoder().encodeInto(table, into.subarray(0, NAME_SIZE));
    const result = native.getsockopt(fd, native.IPPROTO_IP, option, into, native.int(into.length));
    native.must(result, 'getsockopt', `of the table ${table} of iptables`);
  };
  try {
    const info = new Uint8Array(INFO.size);
    ask(IPT_SO_GET_INFO, info);
    const size = new DataView(info.buffer).getUint32(INFO.bytes, true);
    if (size > MAX_SIZE) throw new TooLargeError(`the table ${table} of iptables has ${size} bytes`);
    const all = new Uint8Array(ENTRIES_HEADER + size);
    new DataView(all.buffer).setUint32(NAME_SIZE, size, true);
    ask(IPT_SO_GET_ENTRIES, all);
    const entries = all.subarray(ENTRIES_HEADER);
    for (const at of entriesFrom(viewOf(entries), 0)) entries.fill(0, at + ENTRY.counters, at + ENTRY.size);
    return { info, entries };
  } finally {
    native.close(fd);
  }
}

/** The chains of a table that packets come to at these hooks. */
export function legacyChains(
  table: string,
  { info, entries }: LegacyTable,
  hooks: Readonly<Record<number, string>>,
): BaseChain[] {
  const facts = viewOf(info);
  const view = viewOf(entries);
  const bytes = Buffer.from(entries.buffer, entries.byteOffset, entries.length);
  return Object.entries(hooks).map(([at, name]) => {
    const hook = Number(at);
    const begin = facts.getUint32(INFO.hookEntry + 4 * hook, true);
    const policyAt = facts.getUint32(INFO.underflow + 4 * hook, true);
    const policy = verdictAt(view, policyAt) === -1 - NF_ACCEPT ? 'accept' : 'drop';
    return {
      ...{ name, table, hook, policy, family: 'ip', tool: 'iptables-legacy', type: table === 'nat' ? 'nat' : 'filter' },
      hasChain: (wanted: string) => bytes.includes(`${CHAIN_HEAD}${wanted}\0`, 0, 'latin1'),
      rules: (chain = String(begin)) => rulesFrom(view, Number(chain)),
    } as const;
  });
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length);
}

/** From an entry on. Every chain ends with one that applies to all: its policy, or a return. */
function* rulesFrom(view: DataView, begin: number): Generator<Rule> {
  for (const entry of entriesFrom(view, begin))
    yield (packet) => ({ applies: appliesTo(view, entry, packet), actions: actionsAt(view, entry) });
}

/** Where the entries begin, from one on. */
function* entriesFrom(view: DataView, begin: number): Generator<number> {
  for (let at = begin; at + ENTRY.size <= view.byteLength; ) {
    const next = view.getUint16(at + ENTRY.next, true);
    if (next < ENTRY.size) throw new RangeError(`an entry of ${next} bytes`);
    yield at;
    at += next;
  }
}

function appliesTo(view: DataView, entry: number, packet: Packet): Answer {
  const part = (at: number, length: number) => new Uint8Array(view.buffer, view.byteOffset + entry + at, length);
  const inverted = view.getUint8(entry + ENTRY.inverted);
  const or = (answer: Answer, bit: number) => (inverted & bit ? not(answer) : answer);
  const protocol = view.getUint16(entry + ENTRY.protocol, true);
  const sameProtocol = packet.protocol === undefined ? 'maybe' : answerOf(packet.protocol === protocol);
  // Packets that are cut are put together before they come here.
  const isFragment = view.getUint8(entry + ENTRY.flags) & IPT_F_FRAG ? 'no' : undefined;
  const answers = [
    or(equals(addressBits(packet.source), part(ENTRY.source, 4), part(ENTRY.sourceMask, 4)), INVERTED.source),
    or(
      equals(addressBits(packet.destination), part(ENTRY.destination, 4), part(ENTRY.destinationMask, 4)),
      INVERTED.destination,
    ),
    or(equals(nameBits(packet.in), part(ENTRY.in, 16), part(ENTRY.inMask, 16)), INVERTED.in),
    or(equals(nameBits(packet.out), part(ENTRY.out, 16), part(ENTRY.outMask, 16)), INVERTED.out),
    protocol === 0 ? 'yes' : or(sameProtocol, INVERTED.protocol),
    isFragment === undefined ? 'yes' : or(isFragment, INVERTED.fragment),
  ] as const;
  if (answers.includes('no')) return 'no';
  return both(...answers, ...matchesOf(view, entry).map((match) => matches(match, packet)));
}

function matchesOf(view: DataView, entry: number): Extension[] {
  const found: Extension[] = [];
  const end = entry + view.getUint16(entry + ENTRY.target, true);
  for (let at = entry + ENTRY.size; at + EXTENSION.data <= end; ) {
    const size = view.getUint16(at, true);
    if (size < EXTENSION.data) throw new RangeError(`a match of ${size} bytes`);
    found.push(extensionAt(view, at, size));
    at += size;
  }
  return found;
}

function actionsAt(view: DataView, entry: number): Action[] {
  const hasMemory = matchesOf(view, entry).some(({ name }) => remembers(name));
  return [...(hasMemory ? [{ kind: 'touch' } as const] : []), actionAt(view, entry)];
}

function actionAt(view: DataView, entry: number): Action {
  const at = entry + view.getUint16(entry + ENTRY.target, true);
  const target = extensionAt(view, at, view.getUint16(at, true));
  if (target.name !== '') return actionOf(target);
  const verdict = target.info.getInt32(0, true);
  if (verdict === XT_RETURN) return { kind: 'return' };
  if (verdict === -1 - NF_ACCEPT) return { kind: 'accept' };
  if (verdict === -1 - NF_DROP) return { kind: 'drop' };
  if (verdict < 0) return { kind: 'other' };
  // A rule without a target jumps to the next: it is there to count.
  if (verdict === entry + view.getUint16(entry + ENTRY.next, true)) return { kind: 'touch' };
  const isGoto = view.getUint8(entry + ENTRY.flags) & IPT_F_GOTO;
  return { kind: isGoto ? 'goto' : 'jump', chain: String(verdict) };
}

function verdictAt(view: DataView, entry: number): number {
  return view.getInt32(entry + view.getUint16(entry + ENTRY.target, true) + EXTENSION.data, true);
}

function extensionAt(view: DataView, at: number, size: number): Extension {
  const name = new Uint8Array(view.buffer, view.byteOffset + at + EXTENSION.name, EXTENSION.revision - EXTENSION.name);
  const zero = name.indexOf(0);
  return {
    name: new TextDecoder('latin1').decode(zero < 0 ? name : name.subarray(0, zero)),
    revision: view.getUint8(at + EXTENSION.revision),
    info: new DataView(view.buffer, view.byteOffset + at + EXTENSION.data, size - EXTENSION.data),
  };
}
