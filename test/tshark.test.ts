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
import { contains, formatAddress } from '../src/address.ts';
import { covering, Mapping } from '../src/mapping.ts';
import { address, prefix, type Vector, vectorFiles } from './golden.ts';
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
const FIELDS = [...IP_FIELDS, ...GRE_FIELDS, MALFORMED, COMPLAINTS];

const [GOOD, BAD] = ['1', '0'];
const [GRE, IPV4] = ['47', '0x0800'];
const [CHECKSUM, KEY, SEQUENCE] = [0x8000, 0x2000, 0x1000];

type Frame = Record<string, string[]>;
type Header = Record<(typeof IP_FIELDS)[number], string | undefined>;
type Config = (typeof vectorFiles)[number]['config'];

/** The fields of the outer header (0) or the inner one (1). A broken header has fewer, but none comes after it. */
const header = (frame: Frame, at: number) =>
  Object.fromEntries(IP_FIELDS.map((name) => [name, frame[name]?.[at]])) as Header;

/** Of the GRE header, which is the only one. */
const gre = (frame: Frame, name: (typeof GRE_FIELDS)[number]) => frame[name]?.[0];

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

function judgeGre(frame: Frame, key: number | undefined): string | undefined {
  const flags = Number(gre(frame, 'gre.flags_and_version'));
  if (Number.isNaN(flags)) return 'truncated';
  if ((flags & 0x0007) !== 0) return 'gre-version';
  if ((flags & 0x7c00 & ~KEY & ~SEQUENCE) !== 0) return 'gre-flags';
  const missing = (bit: number, name: (typeof GRE_FIELDS)[number]) => (flags & bit) !== 0 && !gre(frame, name);
  if (missing(CHECKSUM, 'gre.checksum.status')) return 'truncated';
  if (missing(KEY, 'gre.key') || missing(SEQUENCE, 'gre.sequence_number')) return 'truncated';
  if (gre(frame, 'gre.checksum.status') === BAD) return 'gre-checksum';
  if (gre(frame, 'gre.proto') !== IPV4) return 'gre-protocol';
  const found = gre(frame, 'gre.key');
  if ((found === undefined ? undefined : Number(found)) !== key) return 'gre-key';
  return undefined;
}

/** Where an overlay address lives; undefined if in no mapping. */
function place(config: Config, text: string | undefined) {
  const where = address(text as string);
  const mappings = config.mappings.map(({ overlay, underlay }) => new Mapping(prefix(overlay), prefix(underlay)));
  const { kind, vm } = covering(mappings, where)?.explain(where) ?? {};
  if (!kind || !vm) return undefined;
  return { vm: formatAddress(vm), reserved: kind === 'slice' || kind === 'reserved' };
}

function judgeOutbound(frame: Frame, config: Config): string | undefined {
  const { 'ip.src': source, 'ip.dst': destination } = header(frame, 0);
  const [from, to] = [place(config, source), place(config, destination)];
  if (from?.vm !== config.local || from.reserved) return 'foreign-source';
  if (to === undefined) return 'no-mapping';
  if (to.vm === config.local) return 'own-slice';
  return to.reserved ? 'reserved-address' : undefined;
}

function judgeInbound(frame: Frame, config: Config): string | undefined {
  const outer = header(frame, 0);
  if (outer['ip.proto'] !== GRE) return 'not-gre';
  if (outer['ip.flags.mf'] !== '0' || outer['ip.frag_offset'] !== '0') return 'fragment';
  if (outer['ip.dst'] !== config.local) return 'not-for-us';
  const isUnderlay = ({ underlay }: Config['mappings'][number]) =>
    contains(prefix(underlay), address(outer['ip.src'] as string));
  if (outer['ip.src'] === config.local || !config.mappings.some(isUnderlay)) return 'foreign-underlay';
  return judgeGre(frame, config.key) ?? judgeHeader(frame, 1) ?? judgeInner(frame, config);
}

function judgeInner(frame: Frame, config: Config): string | undefined {
  const { 'ip.src': source, 'ip.dst': destination } = header(frame, 1);
  const [from, to] = [place(config, source), place(config, destination)];
  if (from?.vm !== header(frame, 0)['ip.src'] || from?.reserved) return 'spoofed-source';
  if (to?.vm !== config.local) return 'foreign-destination';
  return to.reserved ? 'reserved-address' : undefined;
}

function judge(frame: Frame, { direction }: Vector, config: Config): string {
  const scope = direction === 'outbound' ? judgeOutbound : judgeInbound;
  return judgeHeader(frame, 0) ?? scope(frame, config) ?? 'forward';
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
    const all = vectorFiles.flatMap(({ vectors }) => vectors.flatMap(({ input, output = input }) => [input, output]));
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

    test.each(forwarded)('nothing to complain about: $direction: $name', ({ input, output }) => {
      for (const frame of [read(input), read(output)]) {
        expect(frame).toMatchObject({ [MALFORMED]: [], [COMPLAINTS]: [] });
        expect(frame['ip.checksum.status']).not.toContain(BAD);
      }
    });

    test.each(forwarded.filter(({ direction }) => direction === 'outbound'))(
      'G1, O1 outer headers and the inner packet: outbound: $name',
      ({ input, output, peer }) => {
        const [inner, sent] = [header(read(input), 0), read(output)];
        expect(header(sent, 1)).toEqual(inner);
        expect(header(sent, 0)).toMatchObject({
          ...{
            'ip.version': '4',
            'ip.hdr_len': '20',
            'ip.dsfield.dscp': '0',
            'ip.dsfield.ecn': inner['ip.dsfield.ecn'],
          },
          ...{ 'ip.flags.df': '1', 'ip.flags.mf': '0', 'ip.frag_offset': '0', 'ip.ttl': '64', 'ip.proto': GRE },
          ...{ 'ip.checksum.status': GOOD, 'ip.src': config.local, 'ip.dst': peer },
          'ip.len': String(Number(inner['ip.len']) + (config.key === undefined ? 24 : 28)),
        });
        expect(gre(sent, 'gre.flags_and_version')).toBe(config.key === undefined ? '0x0000' : '0x2000');
        expect(gre(sent, 'gre.proto')).toBe(IPV4);
      },
    );

    test.each(forwarded.filter(({ direction }) => direction === 'inbound'))(
      'the inner packet comes out: inbound: $name',
      ({ input, output, peer }) => {
        expect(header(read(output), 0)).toEqual(header(read(input), 1));
        expect(header(read(input), 0)).toMatchObject({ 'ip.src': peer, 'ip.dst': config.local });
      },
    );
  });
});
