/**
 * Rules of nftables: their expressions load what a packet has into registers, compare, and end with a
 * verdict.
 */
import { ipv4Number } from '../netlink/ipv4.ts';
import { type Element, type Expression, NF_ACCEPT, NF_DROP } from '../netlink/nf-tables.ts';
import type { Action, Rule } from './fate.ts';
import {
  type Answer,
  addressBits,
  answerOf,
  anyOf,
  type Bits,
  both,
  equals,
  indexBits,
  isWhole,
  knownBits,
  nameBits,
  not,
  numberBits,
  type Packet,
  stateBit,
  unknown,
} from './packet.ts';
import { actionOf, type Extension, matches, remembers } from './xtables.ts';

// <linux/netfilter/nf_tables.h>
const NFT_CMP_EQ = 0;
const NFT_CMP_NEQ = 1;
/** NFT_CMP_LT and those that follow it. */
const ORDERED: Record<number, (order: number) => boolean> = {
  2: (order) => order < 0,
  3: (order) => order <= 0,
  4: (order) => order > 0,
  5: (order) => order >= 0,
};
const NFT_PAYLOAD_NETWORK_HEADER = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER = 2;
const NFT_BITWISE_MASK_XOR = 0;
const NFT_LOOKUP_F_INV = 1;
const NFT_CT_STATE = 0;
const NFT_CT_STATUS = 2;
/** IPS_SRC_NAT and IPS_DST_NAT (<linux/netfilter/nf_conntrack_common.h>). */
const NAT_STATUS = 0x30;
const NFT_REG_VERDICT = 0;
const NFT_REG_4 = 4;
const NFT_REG32_00 = 8;
const NFT_NAT_SNAT = 0;
const NFT_NAT_DNAT = 1;
const NFT_FIB_RESULT_ADDRTYPE = 3;
const NFTA_FIB_F_DADDR = 1 << 1;
/** What the kernel takes an address for that table local does not know (inet_addr_type in net/ipv4/fib_frontend.c). */
const RTN_UNICAST = 1;
/** The verdicts of rules are negative, those of netfilter (<linux/netfilter.h>) are not. */
const NFT_JUMP = -3;
const NFT_GOTO = -4;
const NFT_RETURN = -5;
const NFT_CONTINUE = -1;

/** By enum nft_meta_keys. NFPROTO and the protocol of the Ethernet header are those of IPv4. */
const META: Record<number, (packet: Packet) => Bits> = {
  1: () => knownBits(Uint8Array.of(0x08, 0x00)),
  3: ({ mark }) => numberBits(mark),
  4: (packet) => indexBits(packet.in),
  5: (packet) => indexBits(packet.out),
  6: (packet) => nameBits(packet.in),
  7: (packet) => nameBits(packet.out),
  15: () => numberBits(2, 1),
  16: ({ protocol }) => numberBits(protocol, 1),
};

/** Expressions that neither decide nor change anything here; with the others, somebody is told or counts. */
const PASSING = ['counter', 'last'];
const TOUCHING = ['log', 'objref'];
/** Expressions that decide, or load what is compared then, by what is not known of the packet. */
const CONDITIONS = [
  ...['limit', 'quota', 'connlimit', 'dynset', 'byteorder', 'hash', 'numgen'],
  ...['fib', 'exthdr', 'rt', 'socket', 'osf', 'xfrm', 'tunnel'],
];
/** Of those, what remembers packets, or may change them. */
const REMEMBERING = ['limit', 'quota', 'connlimit', 'dynset', 'exthdr'];

/**
 * What is in a set of the rule's table; undefined if that cannot be told. It is asked only where something of
 * the key is known.
 */
export type ElementsOf = (set: string) => readonly Element[] | undefined;

/** A rule, to be asked. */
export function ruleOf(expressions: readonly Expression[], elementsOf: ElementsOf): Rule {
  return (packet) => new Evaluation(packet, elementsOf).run(expressions);
}

class Evaluation {
  readonly #packet: Packet;
  readonly #elementsOf: ElementsOf;
  /** NFT_REG_1 to 4 of 16 bytes each, which are the same as NFT_REG32_00 to 15. */
  #registers = unknown(64);
  #applies: Answer = 'yes';
  readonly #actions: Action[] = [];

  constructor(packet: Packet, elementsOf: ElementsOf) {
    this.#packet = packet;
    this.#elementsOf = elementsOf;
  }

  run(expressions: readonly Expression[]): ReturnType<Rule> {
    for (const expression of expressions) {
      this.#step(expression);
      if (this.#applies === 'no') break;
    }
    // It is there to count.
    if (this.#actions.length === 0) this.#actions.push({ kind: 'touch' });
    return { applies: this.#applies, actions: this.#actions };
  }

  #step(expression: Expression): void {
    if (!expression.data) {
      this.#stepByName(expression.name);
      return;
    }
    const packet = this.#packet;
    switch (expression.name) {
      case 'payload':
        if (!expression.data.dreg) this.#actions.push({ kind: 'touch' });
        this.#load(expression.data.dreg, headerBits(packet, expression.data));
        break;
      case 'meta':
        if (expression.data.dreg === undefined) this.#actions.push({ kind: 'mark' });
        else this.#load(expression.data.dreg, META[expression.data.key ?? 0]?.(packet));
        break;
      case 'ct':
        if (!expression.data.dreg) this.#actions.push({ kind: 'touch' });
        this.#load(expression.data.dreg, trackedBits(packet, expression.data));
        break;
      case 'lookup':
        this.#lookUp(expression.data);
        break;
      case 'range':
        this.#compareRange(expression.data);
        break;
      case 'bitwise':
        this.#mask(expression.data);
        break;
      case 'cmp':
        this.#compare(expression.data);
        break;
      case 'immediate':
        this.#immediate(expression.data);
        break;
      case 'fib':
        this.#type(expression.data);
        break;
      case 'match':
        this.#require(matches(extensionOf(expression.data), packet));
        if (remembers(expression.data.name)) this.#actions.push({ kind: 'touch' });
        break;
      case 'target':
        this.#actions.push(actionOf(extensionOf(expression.data)));
        break;
      case 'nat':
        this.#actions.push(this.#translation(expression.data));
        break;
    }
  }

  #stepByName(name: string): void {
    if (PASSING.includes(name)) return;
    // What connection tracking would remember is not missed.
    if (name === 'notrack') this.#actions.push({ kind: 'none' });
    else if (TOUCHING.includes(name)) this.#actions.push({ kind: 'touch' });
    else if (name === 'reject') this.#actions.push({ kind: 'drop' });
    else if (name === 'masq') this.#actions.push({ kind: 'masquerade' });
    else if (name === 'redir') this.#actions.push({ kind: 'redirect' });
    else {
      this.#require('maybe');
      this.#registers = unknown(64);
      if (REMEMBERING.includes(name)) this.#actions.push({ kind: 'touch' });
      else if (!CONDITIONS.includes(name)) this.#actions.push({ kind: 'other' });
    }
  }

  /** Of what kind the destination is. Whatever else a rule asks the routes is not known. */
  #type({ dreg, result, flags }: DataOf<'fib'>): void {
    const isKnown = this.#packet.isForOthers && result === NFT_FIB_RESULT_ADDRTYPE && flags === NFTA_FIB_F_DADDR;
    if (isKnown) this.#load(dreg, numberBits(RTN_UNICAST));
    else this.#stepByName('fib');
  }

  #require(answer: Answer): void {
    this.#applies = both(this.#applies, answer);
  }

  /** What is not known has as many bytes as may be. */
  #load(dreg: number | undefined, bits: Bits = unknown(16)): void {
    if (!dreg) return;
    const at = offsetOf(dreg);
    const end = this.#registers.value.length - at;
    this.#registers.value.set(bits.value.subarray(0, end), at);
    this.#registers.known.set(bits.known.subarray(0, end), at);
  }

  #read(register: number | undefined, length: number): Bits {
    const at = offsetOf(register ?? 0);
    return {
      value: this.#registers.value.slice(at, at + length),
      known: this.#registers.known.slice(at, at + length),
    };
  }

  /** dreg = (sreg & mask) ^ xor */
  #mask({ sreg, dreg, len = 0, mask, xor, op = 0 }: DataOf<'bitwise'>): void {
    const from = this.#read(sreg, len);
    const [and, exclusive] = [mask?.value, xor?.value];
    const isKnown = op === NFT_BITWISE_MASK_XOR && and && exclusive;
    const result = isKnown && {
      value: from.value.map((byte, i) => (byte & (and[i] ?? 0)) ^ (exclusive[i] ?? 0)),
      known: from.known.map((byte, i) => byte | (~(and[i] ?? 0) & 0xff)),
    };
    this.#load(dreg, result || unknown(len));
  }

  /** As memcmp(3) does (nft_cmp_eval in the kernel). */
  #compare({ sreg, op, data }: DataOf<'cmp'>): void {
    const want = data?.value ?? new Uint8Array(0);
    const bits = this.#read(sreg, want.length);
    const equal = equals(bits, want);
    if (op === NFT_CMP_EQ) this.#require(equal);
    else if (op === NFT_CMP_NEQ) this.#require(not(equal));
    else
      this.#require(isWhole(bits) ? answerOf(ORDERED[op ?? 0]?.(Buffer.compare(bits.value, want)) ?? false) : 'maybe');
  }

  #compareRange({ sreg, op, from, to }: DataOf<'range'>): void {
    const [first, last] = [from?.value ?? new Uint8Array(0), to?.value ?? new Uint8Array(0)];
    const bits = this.#read(sreg, first.length);
    const isIn = Buffer.compare(bits.value, first) >= 0 && Buffer.compare(bits.value, last) <= 0;
    const answer = isWhole(bits) ? answerOf(isIn) : 'maybe';
    this.#require(op === NFT_CMP_EQ ? answer : not(answer));
  }

  /** A map gives what belongs to the key: bytes for a register, or a verdict. */
  #lookUp({ set = '', sreg, dreg, flags = 0 }: DataOf<'lookup'>): void {
    // A set of several fields has the others in the registers behind.
    const hasKnown = this.#read(sreg, this.#registers.known.length).known.some((byte) => byte !== 0);
    const all = hasKnown ? this.#elementsOf(set) : undefined;
    const answers = all?.map(({ key }) => {
      const value = key?.value ?? new Uint8Array(0);
      return equals(this.#read(sreg, value.length), value);
    });
    const answer = answers ? anyOf(answers) : 'maybe';
    this.#require(flags & NFT_LOOKUP_F_INV ? not(answer) : answer);
    if (dreg === undefined || answer === 'no') return;
    const found = answer === 'yes' ? all?.[answers?.indexOf('yes') ?? 0]?.data : undefined;
    if (dreg !== NFT_REG_VERDICT) this.#load(dreg, found?.value && knownBits(found.value));
    else this.#actions.push(found ? verdictOf(found.verdict?.code, found.verdict?.chain) : { kind: 'other' });
  }

  #immediate({ dreg, data }: DataOf<'immediate'>): void {
    if (data?.value) this.#load(dreg, knownBits(data.value));
    else this.#actions.push(verdictOf(data?.verdict?.code, data?.verdict?.chain));
  }

  #translation({ type, addressMin, addressMax = addressMin }: DataOf<'nat'>): Action {
    if (type !== NFT_NAT_SNAT && type !== NFT_NAT_DNAT) return { kind: 'other' };
    const bits = this.#read(addressMin, 4);
    const isKnown = addressMin !== undefined && addressMax === addressMin && isWhole(bits);
    return { kind: type === NFT_NAT_SNAT ? 'snat' : 'dnat', address: isKnown ? ipv4Number(bits.value) : undefined };
  }
}

type DataOf<N extends string> = NonNullable<Extract<Expression, { name: N; data: object }>['data']>;

function offsetOf(register: number): number {
  return register <= NFT_REG_4 ? (Math.max(register, 1) - 1) * 16 : (register - NFT_REG32_00) * 4;
}

/** What is known of the headers of IPv4 (RFC 791 §3.1) and of UDP and TCP. */
function headerBits(packet: Packet, { base, offset = 0, len = 0 }: DataOf<'payload'>): Bits {
  const header = unknown(Math.max(20, offset + len));
  const put = (at: number, { value, known }: Bits) => {
    header.value.set(value, at);
    header.known.set(known, at);
  };
  if (base === NFT_PAYLOAD_NETWORK_HEADER) {
    put(9, numberBits(packet.protocol, 1));
    put(12, addressBits(packet.source));
    put(16, addressBits(packet.destination));
  } else if (base === NFT_PAYLOAD_TRANSPORT_HEADER && packet.port !== undefined)
    put(2, knownBits(Uint8Array.of(packet.port >> 8, packet.port)));
  return { value: header.value.slice(offset, offset + len), known: header.known.slice(offset, offset + len) };
}

/** What connection tracking says. Nothing has changed the addresses of our packets before. */
function trackedBits(packet: Packet, { key }: DataOf<'ct'>): Bits | undefined {
  if (key === NFT_CT_STATE) return numberBits(stateBit(packet));
  return key === NFT_CT_STATUS ? { value: new Uint8Array(4), known: Uint8Array.of(NAT_STATUS, 0, 0, 0) } : undefined;
}

function extensionOf({ name = '', revision = 0, info }: DataOf<'match'>): Extension {
  const bytes = info ?? new Uint8Array(0);
  return { name, revision, info: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
}

function verdictOf(code: number | undefined, chain = ''): Action {
  switch ((code ?? 0) | 0) {
    case NF_ACCEPT:
      return { kind: 'accept' };
    case NF_DROP:
      return { kind: 'drop' };
    case NFT_CONTINUE:
      return { kind: 'none' };
    case NFT_JUMP:
      return { kind: 'jump', chain };
    case NFT_GOTO:
      return { kind: 'goto', chain };
    case NFT_RETURN:
      return { kind: 'return' };
    default:
      return { kind: 'other' };
  }
}
