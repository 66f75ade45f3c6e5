/** Golden packets, made by an implementation that is not ours (test/vectors/make.py), through both twins. */
import { describe, expect, test } from 'vitest';
import { type PacketCore, verdictName } from '../src/core/index.ts';
import { cores, hex, messages, networkOrder } from './core.ts';
import { address, coreConfig, titleOf, type Vector, vectorFiles } from './golden.ts';

function run(core: PacketCore, { direction, input }: Vector) {
  const packet = Buffer.from(input, 'hex');
  core.put(0, packet);
  const handled = direction === 'outbound' ? core.encapsulate(0, 1, 1) : core.decapsulate(0, 1, 1);
  return {
    handled,
    verdict: verdictName(core.verdict(0)),
    messages: messages(core),
    slot: hex(core.bytes.subarray(core.slot(0), core.slot(0) + packet.length)),
    peer: networkOrder(core.peer(0)),
  };
}

describe.each(cores)('$name', ({ make }) => {
  describe.each(vectorFiles)('$file', ({ config, vectors }) => {
    test.each(vectors.map((vector) => [titleOf(vector), vector] as const))('%s', (_, vector) => {
      const core = make();
      core.attach({});
      core.configure(coreConfig(config));
      const got = run(core, vector);
      expect(got).toMatchObject({ handled: 1, verdict: vector.verdict });
      const counters = core.counters(vector.direction);
      const drops = counters.drops.reduce((sum, n) => sum + n, 0);
      if (vector.verdict === 'forward') {
        const peer = Number(address(vector.peer as string).bits);
        expect(got.messages.map((message) => hex(message.bytes))).toEqual([vector.output]);
        expect(got.messages[0]).toMatchObject({ port: 0, cargo: { packets: 1, bytes: counters.bytes } });
        if (vector.direction === 'outbound') expect(got.messages[0]?.peer).toBe(peer);
        expect(got.peer).toBe(peer);
        expect({ ...counters, drops }).toMatchObject({ received: 1, forwarded: 1, drops: 0 });
      } else {
        expect(got).toMatchObject({ messages: [], slot: vector.input, peer: 0 });
        expect({ ...counters, drops }).toMatchObject({ received: 1, forwarded: 0, bytes: 0, drops: 1 });
        expect(core.tunnelCount).toBe(0);
      }
    });

    test.each(vectors.filter((v) => v.verdict === 'forward' && v.input.length < 2000))(
      'G6, R1 every truncation of $direction: $name is dropped',
      (vector) => {
        const core = make();
        core.configure(coreConfig(config));
        const whole = Buffer.from(vector.input, 'hex');
        const inner = Buffer.from(vector.output as string, 'hex');
        // Bytes behind the stated total length may go.
        const needed = vector.direction === 'outbound' ? whole.readUInt16BE(2) : whole.indexOf(inner) + inner.length;
        for (let length = 0; length < Math.min(needed, whole.length); length++) {
          const verdict = run(core, { ...vector, input: hex(whole.subarray(0, length)) }).verdict;
          expect({ length, verdict }).toEqual({ length, verdict: 'truncated' });
        }
      },
    );
  });
});
