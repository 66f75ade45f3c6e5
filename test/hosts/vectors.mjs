/** The golden packets of test/vectors as lines that every host reads, and the lines with which it has to answer. */
import { readdirSync, readFileSync } from 'node:fs';
import { abi, ipv4, mapping, verdictName } from 'inlay/core';

const FOLDER = new URL('../vectors/', import.meta.url);
/** `now`, gre and what else a host is told where a file's configuration says nothing. */
const [TTL, MTU] = [64, 1476];

const VERDICTS = new Map(Array.from({ length: abi.VERDICTS }, (_, reason) => [verdictName(-reason), -reason]));

/** All vectors: what each is called, its line, and the answer. */
export function readVectors() {
  const files = readdirSync(FOLDER).filter((name) => name.endsWith('.json'));
  return files.sort().flatMap((file) => {
    const { config, vectors } = JSON.parse(readFileSync(new URL(file, FOLDER), 'utf8'));
    return vectors.map((vector) => ({
      name: `${file}: ${vector.direction}: ${vector.name}`,
      line: lineOf(config, vector),
      answer: answerTo(vector),
    }));
  });
}

function lineOf(config, { direction, merged = 0, refused = -1, input }) {
  const { local, key = 0, ttl, dscp, mtu = MTU, mappings } = config;
  const numbers = [
    ipv4(local),
    optionsOf(config),
    key,
    Number.isInteger(ttl) ? ttl : TTL,
    Number.isInteger(dscp) ? dscp : 0,
    abi.ENCAPSULATION_GRE,
    ...[mtu, merged, refused],
  ];
  const prefixes = mappings.flatMap(({ overlay, underlay }) => Object.values(mapping(overlay, underlay)));
  return [direction, ...numbers, input || '-', ...prefixes].join(' ');
}

function optionsOf({ key, greChecksum, greSequence, ttl, ecn, dscp, clampMss }) {
  return (
    (key === undefined ? 0 : abi.OPTION_KEY) |
    (greChecksum ? abi.OPTION_CHECKSUM : 0) |
    (greSequence ? abi.OPTION_SEQUENCE : 0) |
    (ttl === 'inherit' ? abi.OPTION_TTL_INHERIT : 0) |
    (ecn === 'compatibility' ? abi.OPTION_ECN_COMPATIBILITY : 0) |
    (dscp === 'uniform' ? abi.OPTION_DSCP_UNIFORM : 0) |
    (clampMss ? abi.OPTION_CLAMP_MSS : 0)
  );
}

function answerTo({ verdict, output, outputs = output === undefined ? [] : [output], reply, peer = '0.0.0.0' }) {
  const network = ipv4(peer).toString(16).padStart(8, '0');
  return [VERDICTS.get(verdict), network, outputs.join(',') || '-', reply ?? '-'].join(' ');
}
