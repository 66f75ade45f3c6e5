/** One host against what every host has to make of the vectors and of the corpus. */
import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { readPcap } from '../../examples/javascript/pcap.js';
import { DIRECTIONS, digest } from './corpus.mjs';
import { judgeEdges } from './edges.mjs';
import { MESH } from './traffic.mjs';

/**
 * `host` is a host that was opened (hosts.mjs), `expected` what `prepare` made. Resolves to how many vectors it passed, the digest
 * of its outputs, and what is wrong with it, a line each.
 */
export async function conform(host, expected) {
  const { passed, problems } = await judgeVectors(host, expected);
  for (const other of host.others) {
    const vectors = await judgeVectors(host, expected, other);
    problems.push(...vectors.problems.map((it) => `${other}: ${it}`));
  }
  const corpus = await judgeCorpus(host, expected);
  return {
    passed,
    digest: corpus.digest,
    problems: [...problems, ...corpus.problems, ...(await judgeEdges(host, expected))],
  };
}

async function judgeVectors(host, { vectors, answers }, other) {
  const { code, stdout, stderr } = await host.run(['vectors', vectors], other);
  if (code !== 0) return { passed: 0, problems: [`vectors: ends with ${code}: ${stderr.trim()}`] };
  const lines = stdout.split('\n');
  const wrong = answers.flatMap(({ name, answer }, i) =>
    lines[i] === answer ? [] : [`${name}: ${lines[i]}\n${' '.repeat(name.length)}  ${answer} is right`],
  );
  const more = lines.length === answers.length + 1 && lines.at(-1) === '' ? [] : [`vectors: ${lines.length - 1} lines`];
  return { passed: answers.length - wrong.length, problems: [...wrong, ...more] };
}

async function judgeCorpus(host, expected) {
  const outcomes = {};
  const problems = [];
  for (const direction of DIRECTIONS) {
    const output = path.join(expected.folder, `${host.name}-${direction}.pcap`);
    const { local, overlay, underlay } = MESH;
    const words = [direction, local, overlay, underlay, expected.pcaps[direction], output];
    const { code, stdout, stderr } = await host.run(words);
    if (code !== 0) return { problems: [...problems, `${direction}: ends with ${code}: ${stderr.trim()}`] };
    outcomes[direction] = { pcap: readFileSync(output), counters: stdout };
    rmSync(output);
    problems.push(...differences(outcomes[direction], expected.outcomes[direction]).map((it) => `${direction}: ${it}`));
  }
  return { digest: digest(outcomes), problems };
}

/** Where one outcome departs from what is expected, in words. */
function differences(got, expected) {
  const pcap = pcapDifference(got.pcap, expected.pcap);
  const counters =
    got.counters === expected.counters ? [] : [`counters: ${got.counters}expected: ${expected.counters}`];
  return pcap === undefined ? counters : [pcap, ...counters];
}

function pcapDifference(got, expected) {
  if (Buffer.compare(got, expected) === 0) return undefined;
  try {
    const right = readPcap(expected);
    let number = 0;
    for (const { bytes, ...time } of readPcap(got)) {
      number++;
      const { value: { bytes: rightBytes, ...rightTime } = {} } = right.next();
      if (rightBytes === undefined) return `packet ${number} of the output is one too many`;
      if (time.seconds !== rightTime.seconds || time.microseconds !== rightTime.microseconds) {
        return `packet ${number} of the output has another time: ${time.seconds}.${time.microseconds}`;
      }
      if (Buffer.compare(bytes, rightBytes) !== 0) return `packet ${number} of the output has other bytes`;
    }
    return right.next().done ? 'the header of the output is another' : `the output has only ${number} packets`;
  } catch (error) {
    return `the output is no pcap: ${error.message}`;
  }
}
