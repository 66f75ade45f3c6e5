/** Golden packets, made by an implementation that is not ours (test/vectors/make.py), through both twins. */
import { describe, expect, test } from 'vitest';
import { type PacketCore, tunnelsFrom, verdictName } from '../src/core/index.ts';
import { cores, hex, messages } from './core.ts';
import { address, coreConfig, outputsOf, titleOf, type Vector, vectorFiles } from './golden.ts';

function run(core: PacketCore, { direction, input, merged, refused }: Vector) {
  const packet = Buffer.from(input, 'hex');
  core.put(0, packet);
  core.describe(0, packet.length, core.slot(0), merged);
  const handled = direction === 'outbound' ? core.encapsulate(0, 1, 1) : core.decapsulate(0, 1, 1);
  const made = messages(core);
  if (refused !== undefined) for (const { index } of made) core.refuse(index, refused, 1);
  return {
    handled,
    verdict: verdictName(core.verdict(0)),
    messages: made,
    replies: core.messages.replies().map((reply) => hex(core.messages.bytes(reply))),
    slot: hex(core.bytes.subarray(core.slot(0), core.slot(0) + packet.length)),
    peer: core.peer(0),
  };
}

/** Where the inner packet of a GRE packet ends. */
function innerEnd(packet: Buffer): number {
  const gre = (packet.readUInt8(0) & 15) * 4;
  const fields = [0x8000, 0x2000, 0x1000].filter((flag) => (packet.readUInt16BE(gre) & flag) !== 0).length;
  const inner = gre + 4 + 4 * fields;
  return inner + packet.readUInt16BE(inner + 2);
}

describe.each(cores)('$name', ({ make }) => {
  describe.each(vectorFiles)('$file', ({ config, vectors }) => {
    test.each(vectors.map((vector) => [titleOf(vector), vector] as const))('%s', (_, vector) => {
      const core = make();
      core.attach({});
      core.configure(coreConfig(config));
      const got = run(core, vector);
      const replies = vector.reply === undefined ? [] : [vector.reply];
      expect(got).toMatchObject({ handled: 1, verdict: vector.verdict, replies });
      const counters = core.counters(vector.direction);
      const drops = counters.drops.reduce((sum, n) => sum + n, 0);
      if (vector.verdict === 'forward') {
        const peer = Number(address(vector.peer as string).bits);
        const outputs = outputsOf(vector);
        expect(got.messages.map((message) => hex(message.bytes))).toEqual(outputs);
        for (const { port, content } of got.messages) expect([port, content.packets]).toEqual([0, 1]);
        const sent = vector.refused === undefined;
        expect(got.messages.reduce((sum, { content }) => sum + (sent ? content.bytes : 0), 0)).toBe(counters.bytes);
        if (vector.direction === 'outbound') expect(got.messages[0]?.peer).toBe(peer);
        expect(got.peer).toBe(peer);
        const packets = outputs.length;
        const [forwarded, lost] = sent ? [packets, 0] : [0, packets];
        expect({ ...counters, drops }).toMatchObject({ received: packets, forwarded, drops: lost });
        const [tunnel] = tunnelsFrom(core.tunnels.copy(1));
        expect(tunnel).toMatchObject({ [vector.direction]: { packets: forwarded, bytes: counters.bytes } });
        expect(tunnel?.unreachable).toBe(vector.refused);
      } else {
        expect(got).toMatchObject({ messages: [], slot: vector.input, peer: 0 });
        expect({ ...counters, drops }).toMatchObject({ received: 1, forwarded: 0, bytes: 0, drops: 1 });
        // These two are found out with what the tunnel knows.
        expect(core.tunnels.count).toBe(['too-big', 'gre-sequence'].includes(vector.verdict) ? 1 : 0);
      }
    });

    test.each(vectors.filter((v) => v.output !== undefined && v.input.length < 2000))(
      'G6, R1 every truncation of $direction: $name is dropped',
      (vector) => {
        const core = make();
        core.configure(coreConfig(config));
        const whole = Buffer.from(vector.input, 'hex');
        // Bytes behind the stated total length may go.
        const needed = vector.direction === 'outbound' ? whole.readUInt16BE(2) : innerEnd(whole);
        for (let length = 0; length < Math.min(needed, whole.length); length++) {
          const verdict = run(core, { ...vector, input: hex(whole.subarray(0, length)) }).verdict;
          expect({ length, verdict }).toEqual({ length, verdict: 'truncated' });
        }
      },
    );
  });
});
