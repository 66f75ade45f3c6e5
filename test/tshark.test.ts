/**
 * An independent decoder reads every golden packet as we do. What tshark reads in a packet is judged here by the rules of RFC 2784 and RFC 2890
 * and the mapping's arithmetic, and the judgement has to be the vector's verdict; of what is forwarded, both headers are compared.
 *
 * tshark judges lengths, the header checksums and the GRE checksum by itself. It names GRE's bits 1 to 5 without refusing them, and knows neither
 * keys nor who may send what: for these its part is to read the fields and addresses right.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { abi, overhead } from '../src/core/index.ts';
import { formatAddress } from '../src/mesh/address.ts';
import { covering, Mapping } from '../src/mesh/mapping.ts';
import { address, outputsOf, prefix, type Vector, vectorFiles } from './golden.ts';
import { missingCommands, skip } from './net/require.ts';
import { decode } from './net/tshark.ts';

const IP_FIELDS = [
  ...['ip.version', 'ip.hdr_len', 'ip.dsfield.dscp', 'ip.dsfield.ecn', 'ip.len', 'ip.id', 'ip.flags.df', 'ip.flags.mf'],
  ...['ip.frag_offset', 'ip.ttl', 'ip.proto', 'ip.checksum.status', 'ip.src', 'ip.dst'],
] as const;
const GRE_FIELDS = [
  ...['gre.flags_and_version', 'gre.proto', 'gre.checksum.status', 'gre.key', 'gre.sequence_number'],
] as const;
/** What tshark complains about. */
const [MALFORMED, COMPLAINTS] = ['_ws.malformed', '_ws.expert.message'];
const ICMP_FIELDS = ['icmp.type', 'icmp.code', 'icmp.mtu', 'icmp.checksum.status'] as const;
const TCP_CHECKSUM = 'tcp.checksum';
const FIELDS = [...IP_FIELDS, ...GRE_FIELDS, ...ICMP_FIELDS, TCP_CHECKSUM, MALFORMED, COMPLAINTS];

const [GOOD, BAD] = ['1', '0'];
const [GRE, IPV4] = ['47', '0x0800'];
const [CHECKSUM, KEY, SEQUENCE] = [0x8000, 0x2000, 0x1000];
const [NOT_ECT, CE] = ['0', '3'];
/** Of the inner packet, unless the configuration has another. */
const MTU = 1476;

/** What it says about TCP, which is not ours, and about what becomes of options that are not copied. */
const NOTES = /^Connection establish|^4 NOP in a row|MSS option$/;

type Frame = Record<string, string[]>;
type Header = Record<(typeof IP_FIELDS)[number], string | undefined>;
type Config = (typeof vectorFiles)[number]['config'];

/** The fields of the outer header (0) or the inner one (1). A broken header has fewer, but none comes after it. */
const header = (frame: Frame, at: number) =>
  Object.fromEntries(IP_FIELDS.map((name) => [name, frame[name]?.[at]])) as Header;

/** Of the GRE header, which is the only one. */
const gre = (frame: Frame, name: (typeof GRE_FIELDS)[number]) => frame[name]?.[0];

/** A header but for what the outer one may have changed: the type of service. */
const unmarked = ({ 'ip.dsfield.dscp': _, 'ip.dsfield.ecn': __, ...rest }: Header) => rest;

const complains = (frame: Frame, text: string) => frame[COMPLAINTS]?.some((found) => found.startsWith(text));

/** What is wrong with an IPv4 header; undefined if nothing is. */
function judgeHeader(frame: Frame, at: number): string | undefined {
  const found = header(frame, at);
  if (found['ip.version'] === undefined) return 'truncated';
  if (found['ip.version'] !== '4') return 'not-ipv4';
  if (complains(frame, 'Bogus IP header length')) return 'bad-header-length';
  if (complains(frame, 'Bogus IP length')) return 'bad-total-length';
  if (complains(frame, 'IPv4 total length exceeds packet length')) return 'truncated';
  if (found['ip.checksum.status'] === BAD) return 'bad-header-checksum';
  return undefined;
}

function judgeGre(frame: Frame, { merged }: Vector, key: number | undefined): string | undefined {
  const flags = Number(gre(frame, 'gre.flags_and_version'));
  if (Number.isNaN(flags)) return 'truncated';
  if ((flags & 0x0007) !== 0) return 'gre-version';
  if ((flags & 0x7c00 & ~KEY & ~SEQUENCE) !== 0) return 'gre-flags';
  const missing = (bit: number, name: (typeof GRE_FIELDS)[number]) => (flags & bit) !== 0 && !gre(frame, name);
  if (missing(CHECKSUM, 'gre.checksum.status')) return 'truncated';
  if (missing(KEY, 'gre.key') || missing(SEQUENCE, 'gre.sequence_number')) return 'truncated';
  const isVerified = merged !== undefined && merged !== abi.NOT_MERGED;
  if (gre(frame, 'gre.checksum.status') === BAD && !isVerified) return 'gre-checksum';
  if (gre(frame, 'gre.proto') !== IPV4) return 'gre-protocol';
  const found = gre(frame, 'gre.key');
  if ((found === undefined ? undefined : Number(found)) !== key) return 'gre-key';
  return undefined;
}

/** Where an overlay address lives; undefined if in no mapping. */
function place(config: Config, text: string | undefined) {
  const where = address(text as string);
  const mapping = covering(mappingsOf(config), where);
  if (!mapping) return undefined;
  const { kind, vm } = mapping.explain(where);
  return { vm: formatAddress(vm), reserved: kind === 'slice' || kind === 'reserved' || !mapping.canBeVm(vm) };
}

function mappingsOf({ mappings }: Config): Mapping[] {
  return mappings.map(({ overlay, underlay }) => new Mapping(prefix(overlay), prefix(underlay)));
}

function judgeOutbound(frame: Frame, config: Config): string | undefined {
  const { 'ip.src': source, 'ip.dst': destination } = header(frame, 0);
  const [from, to] = [place(config, source), place(config, destination)];
  if (from?.vm !== config.local || from.reserved) return 'foreign-source';
  if (to === undefined) return 'no-mapping';
  if (to.vm === config.local) return 'own-slice';
  if (to.reserved) return 'reserved-address';
  const { 'ip.proto': protocol, 'ip.len': length, 'ip.flags.df': dontFragment } = header(frame, 0);
  if (protocol === GRE) return 'nested-gre';
  return Number(length) > (config.mtu ?? MTU) && dontFragment === '1' ? 'too-big' : undefined;
}

function judgeInbound(frame: Frame, vector: Vector, config: Config): string | undefined {
  const outer = header(frame, 0);
  if (outer['ip.proto'] !== GRE) return 'not-gre';
  if (outer['ip.flags.mf'] !== '0' || outer['ip.frag_offset'] !== '0') return 'fragment';
  if (outer['ip.dst'] !== config.local) return 'not-for-us';
  const sender = address(outer['ip.src'] as string);
  const isVm = mappingsOf(config).some((mapping) => mapping.canBeVm(sender));
  if (outer['ip.src'] === config.local || !isVm) return 'foreign-underlay';
  return judgeGre(frame, vector, config.key) ?? judgeHeader(frame, 1) ?? judgeInner(frame, vector, config);
}

function judgeInner(frame: Frame, { merged }: Vector, config: Config): string | undefined {
  const { 'ip.src': source, 'ip.dst': destination } = header(frame, 1);
  const [from, to] = [place(config, source), place(config, destination)];
  if (from?.vm !== header(frame, 0)['ip.src'] || from?.reserved) return 'spoofed-source';
  if (to?.vm !== config.local) return 'foreign-destination';
  if (to.reserved) return 'reserved-address';
  const [outer, inner] = [header(frame, 0), header(frame, 1)];
  if (inner['ip.proto'] === GRE) return 'nested-gre';
  if (inner['ip.dsfield.ecn'] === NOT_ECT && outer['ip.dsfield.ecn'] === CE) return 'ecn';
  const isLong = Number(inner['ip.len']) > (config.mtu ?? MTU);
  if (merged === undefined && isLong && complains(frame, 'Bad checksum') && !isOpenTcp(frame)) return 'merged';
  return config.greSequence && gre(frame, 'gre.sequence_number') === undefined ? 'gre-sequence' : undefined;
}

/** Whether the checksum of the inner packet is that of TCP's pseudo header (RFC 9293 §3.1) alone. */
function isOpenTcp(frame: Frame): boolean {
  const { 'ip.src': source, 'ip.dst': destination, 'ip.proto': protocol, 'ip.len': length } = header(frame, 1);
  const words = [source, destination].flatMap((text) => {
    const number = Number(address(text as string).bits);
    return [number >>> 16, number & 0xffff];
  });
  const sum = [...words, Number(protocol), Number(length) - 20].reduce((total, word) => total + word);
  return protocol === '6' && Number(frame[TCP_CHECKSUM]?.[0]) === (sum % 0x10000) + Math.floor(sum / 0x10000);
}

function judge(frame: Frame, vector: Vector, config: Config): string {
  const scope = () =>
    vector.direction === 'outbound' ? judgeOutbound(frame, config) : judgeInbound(frame, vector, config);
  return judgeHeader(frame, 0) ?? scope() ?? 'forward';
}

/** A capture file of IP packets without a link layer. */
function pcap(packets: readonly Uint8Array[]): Buffer {
  const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer);
  const [magic, version, snapshotLength, linktypeRaw] = [0xa1b2c3d4, 0x00040002, 0xffff, 101];
  const records = packets.flatMap((packet) => [words(0, 0, packet.length, packet.length), packet]);
  return Buffer.concat([words(magic, version, 0, 0, snapshotLength, linktypeRaw), ...records]);
}

describe.skipIf(skip('tshark', missingCommands('tshark')))('tshark', () => {
  /** What tshark reads in each input and output. */
  const frames = new Map<string, Frame>();
  const read = (packet: string | undefined) => frames.get(packet as string) as Frame;

  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-tshark-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  beforeAll(() => {
    const all = vectorFiles.flatMap(({ vectors }) =>
      vectors.flatMap((vector) => [vector.input, ...outputsOf(vector), vector.reply ?? vector.input]),
    );
    const packets = [...new Set(all)];
    const file = path.join(folder, 'vectors.pcap');
    writeFileSync(file, pcap(packets.map((packet) => Buffer.from(packet, 'hex'))));
    const decoded = decode(file, FIELDS);
    expect(decoded).toHaveLength(packets.length);
    packets.forEach((packet, i) => void frames.set(packet, decoded[i] as Frame));
  });

  describe.each(vectorFiles)('$file', ({ config, vectors }) => {
    test.each(vectors)('$verdict: $direction: $name', (vector) => {
      expect(judge(read(vector.input), vector, config)).toBe(vector.verdict);
    });

    const forwarded = vectors.filter(({ verdict }) => verdict === 'forward');

    test.each(forwarded)('nothing to complain about: $direction: $name', (vector) => {
      // What was merged has no checksum of its own.
      const isWire = vector.merged === undefined && (vector.direction === 'outbound' || vector.output !== undefined);
      for (const frame of [...(isWire ? [vector.input] : []), ...outputsOf(vector)].map(read)) {
        expect(frame[MALFORMED]).toEqual([]);
        expect(frame[COMPLAINTS]?.filter((text) => !NOTES.test(text))).toEqual([]);
        expect(frame['ip.checksum.status']).not.toContain(BAD);
      }
    });

    const { key, greChecksum, greSequence, ttl = 64, dscp = 0, ecn = 'normal' } = config;
    const flags = (greChecksum ? CHECKSUM : 0) | (key === undefined ? 0 : KEY) | (greSequence ? SEQUENCE : 0);

    test.each(forwarded.filter(({ direction }) => direction === 'outbound'))(
      'G1, O1 outer headers: outbound: $name',
      (vector) => {
        for (const sent of outputsOf(vector).map(read)) {
          const inner = header(sent, 1);
          expect(header(sent, 0)).toMatchObject({
            ...{ 'ip.version': '4', 'ip.hdr_len': '20' },
            'ip.dsfield.dscp': dscp === 'uniform' ? inner['ip.dsfield.dscp'] : String(dscp),
            'ip.dsfield.ecn': ecn === 'compatibility' ? NOT_ECT : inner['ip.dsfield.ecn'],
            ...{ 'ip.flags.df': '1', 'ip.flags.mf': '0', 'ip.frag_offset': '0', 'ip.proto': GRE },
            'ip.ttl': ttl === 'inherit' ? inner['ip.ttl'] : String(ttl),
            ...{ 'ip.checksum.status': GOOD, 'ip.src': config.local, 'ip.dst': vector.peer },
            'ip.len': String(
              Number(inner['ip.len']) +
                overhead('gre', { key, greChecksum: Boolean(greChecksum), greSequence: Boolean(greSequence) }),
            ),
          });
          expect(Number(gre(sent, 'gre.flags_and_version'))).toBe(flags);
          expect(gre(sent, 'gre.proto')).toBe(IPV4);
          if (greChecksum) expect(gre(sent, 'gre.checksum.status')).toBe(GOOD);
        }
      },
    );

    test.each(forwarded.filter(({ direction, output }) => direction === 'outbound' && output !== undefined))(
      'the inner packet as it was: outbound: $name',
      ({ input, output }) => expect(header(read(output), 1)).toEqual(header(read(input), 0)),
    );

    test.each(forwarded.filter(({ direction, outputs }) => direction === 'outbound' && outputs !== undefined))(
      'M3, M5 fragments: outbound: $name',
      (vector) => {
        const whole = header(read(vector.input), 0);
        let at = 0;
        for (const [i, sent] of outputsOf(vector).map(read).entries()) {
          const found = header(sent, 1);
          const isLast = i === outputsOf(vector).length - 1;
          for (const name of ['ip.src', 'ip.dst', 'ip.proto', 'ip.id', 'ip.ttl', 'ip.hdr_len'] as const) {
            expect(found[name]).toBe(whole[name]);
          }
          expect(found['ip.flags.df']).toBe('0');
          const offset = Number(found['ip.frag_offset']) - Number(whole['ip.frag_offset']);
          // In units of 8 bytes, or in bytes: that depends on tshark's version.
          expect([at, at / 8]).toContain(offset);
          expect(found['ip.flags.mf']).toBe(isLast ? whole['ip.flags.mf'] : '1');
          expect(Number(found['ip.len'])).toBeLessThanOrEqual(config.mtu ?? MTU);
          const bytes = Number(found['ip.len']) - Number(found['ip.hdr_len']);
          if (!isLast) expect(bytes % 8).toBe(0);
          at += bytes;
        }
        const end = Number(whole['ip.len']) - Number(whole['ip.hdr_len']);
        expect(at).toBe(end);
      },
    );

    test.each(vectors.filter((vector) => vector.reply !== undefined))(
      'I2, I3 the reply: $name',
      ({ input, reply, verdict }) => {
        const answer = read(reply);
        const about = header(read(input), 0);
        expect(header(answer, 0)).toMatchObject({
          ...{ 'ip.dsfield.dscp': '48', 'ip.dsfield.ecn': '0', 'ip.proto': '1', 'ip.checksum.status': GOOD },
          ...{ 'ip.src': '10.16.32.1', 'ip.dst': about['ip.src'] },
          'ip.len': String(Math.min(576, Number(about['ip.len']) + 28)),
        });
        expect(header(answer, 1)).toMatchObject({
          'ip.src': about['ip.src'],
          'ip.dst': about['ip.dst'],
          'ip.id': about['ip.id'],
        });
        const [type, code] = ['icmp.type', 'icmp.code'].map((name) => answer[name]?.[0]);
        expect([type, code]).toEqual(['3', verdict === 'too-big' ? '4' : '1']);
        if (verdict === 'too-big') expect(answer['icmp.mtu']).toEqual([String(config.mtu)]);
        expect(answer['icmp.checksum.status']?.[0]).toBe(GOOD);
      },
    );

    test.each(forwarded.filter(({ direction, output }) => direction === 'inbound' && output !== undefined))(
      'the inner packet comes out: inbound: $name',
      ({ input, output, peer }) => {
        expect(unmarked(header(read(output), 0))).toEqual(unmarked(header(read(input), 1)));
        expect(header(read(input), 0)).toMatchObject({ 'ip.src': peer, 'ip.dst': config.local });
      },
    );
  });
});
