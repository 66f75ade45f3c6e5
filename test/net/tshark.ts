/** tshark, a decoder that is not ours. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import type { Lab } from '../../src/demo/lab.ts';

export interface Capture {
  /** Network namespace, or the lab's own. */
  where: string | undefined;
  device: string;
  filter: string;
  count: number;
}

/** Captures `count` packets to a file. A capture begins some time after its start: `send` is done again and again until there are enough. */
export async function capture(lab: Lab, what: Capture, file: string, send: () => Promise<unknown>): Promise<void> {
  const { where, device, filter, count } = what;
  const output = openSync(file, 'w');
  const words = ['tshark', '-Q', '-i', device, '-c', String(count), '-a', 'duration:20', '-f', filter, '-w', '-'];
  const child = lab.start(where, words, { stdio: ['ignore', output, 'ignore'] });
  closeSync(output);
  let captured = false;
  child.once('exit', () => {
    captured = true;
  });
  while (!captured) await send();
}

/** The values of these fields in each packet of a capture file, one for each header that has the field. */
export function decode(file: string, fields: readonly string[]): Record<string, string[]>[] {
  const words = ['-n', '-r', file, '-T', 'fields', '-E', 'aggregator=|', ...fields.flatMap((name) => ['-e', name])];
  const preferences = [
    // Checksums are looked at only where asked for; that of GRE always is.
    ...['ip', 'tcp', 'udp'].map((protocol) => `${protocol}.check_checksum:TRUE`),
    // Each packet by itself, and a total length of 0 is not that of a super-packet.
    ...['ip.defragment', 'ip.tso_support', 'tcp.analyze_sequence_numbers'].map((name) => `${name}:FALSE`),
  ];
  const ports = ['-d', 'udp.port==4754,gre'];
  const lines = execFileSync('tshark', [...words, ...preferences.flatMap((name) => ['-o', name]), ...ports], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).split('\n');
  lines.pop();
  // Newer versions print flags as True and False, older ones as 1 and 0.
  const plain = (value: string) => value.replace('True', '1').replace('False', '0');
  const valuesOf = (text: string | undefined) => (text ? text.split('|').map(plain) : []);
  return lines.map((line) => {
    const texts = line.split('\t');
    return Object.fromEntries(fields.map((name, i) => [name, valuesOf(texts[i])]));
  });
}
