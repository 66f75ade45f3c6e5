/** The simulation of large meshes: it gives the same on every core, is what VMs with cores of their own would do, and sees what is wrong. */
import { describe, expect, test } from 'vitest';
import { INVARIANTS } from '../bench/simulate/failures.mjs';
import { Simulation } from '../bench/simulate/simulation.mjs';
import { abi, type PacketCore } from '../src/core/index.ts';
import { cores } from './core.ts';

const OPTIONS = {
  ...{ vms: 12, packets: 4000, containers: 5, seed: 7 },
  ...{ loss: 1, copy: 1, reorder: 5, narrow: 50, vanish: 30, spoofers: 30 },
};
const [WASM] = cores as [(typeof cores)[number]];

interface Core extends PacketCore {}

/** A run to its end; `change` may break something before it begins. */
function simulated(make: () => Core, options = {}, change: (simulation: Simulation, core: Core) => void = () => {}) {
  const core = make();
  const simulation = new Simulation(core, { ...OPTIONS, ...options });
  change(simulation, core);
  simulation.run();
  simulation.finish();
  return simulation;
}

const broken = ({ failures }: Simulation) => [...new Set(failures.list.map(({ invariant }) => INVARIANTS[invariant]))];
const [ENDS, BYTES, VERDICTS, COUNTERS, SUMS, REPLIES, SWAP] = INVARIANTS as [
  ...[string, string, string, string, string, string, string],
];

describe('a mesh of 12 VMs', () => {
  const runs = cores.map(({ name, make }) => ({ name, run: simulated(make) }));

  test.each(runs)('keeps all invariants: $name', ({ run }) => {
    expect(run.failures.list).toEqual([]);
  });

  test('is the same on every core, to the last byte that VMs keep', () => {
    const [first] = runs;
    for (const { run } of runs) {
      expect(run.digest.text).toBe(first?.run.digest.text);
      expect(run.ledger.list).toEqual(first?.run.ledger.list);
    }
  });

  test('is the same again with the same seed, and another with another', () => {
    expect(simulated(WASM.make).digest.text).toBe(runs[0]?.run.digest.text);
    expect(simulated(WASM.make, { seed: 8 }).digest.text).not.toBe(runs[0]?.run.digest.text);
  });

  test('has seen everything that may become of a packet', () => {
    const { ledger, network, audit, judge } = (runs[0] as (typeof runs)[number]).run;
    const names = ledger.list.map(({ name }) => (name ?? '').replace('dropped by its own VM: ', ''));
    expect(names).toEqual([
      'delivered',
      'delivered again: the network had made a copy',
      'delivered in fragments, put together',
      'delivered on the same VM',
      'lost by the network',
      'too long for the path',
      'no such VM',
      'receiver had vanished',
      'in fragments, of which some did not arrive',
      'foreign-source',
      'no-mapping',
      'own-slice',
      'reserved-address',
      'too-big',
    ]);
    for (const [what, count] of Object.entries({ ...network.packets, ...network.icmp }))
      expect(count, what).toBeGreaterThan(0);
    expect(audit.replies).toBeGreaterThan(0);
    expect(audit.closed).toBeGreaterThan(0);
    // VMs have begun anew.
    expect(audit.audited).toBeGreaterThan(OPTIONS.vms);
    const forged = Array.from(judge.forged, (count, reason) => (count > 0 ? -reason : 0)).filter(
      (verdict) => verdict < 0,
    );
    expect(forged).toEqual([
      abi.DROP_RESERVED_ADDRESS,
      abi.DROP_FOREIGN_UNDERLAY,
      abi.DROP_GRE_VERSION,
      abi.DROP_SPOOFED_SOURCE,
      abi.DROP_FOREIGN_DESTINATION,
      abi.DROP_NESTED_GRE,
    ]);
  });
});

test.each([1, 2])('%i VMs, each with all containers that it can have', (vms) => {
  const run = simulated(WASM.make, { vms, containers: 253 });
  expect(run.failures.list).toEqual([]);
  // Few VMs send much at once: not all containers are told.
  expect(run.audit.suppressed).toBeGreaterThan(0);
});

test('many VMs, few packets', () => {
  const run = simulated(WASM.make, { vms: 3000, packets: 6000 });
  expect(run.failures.list).toEqual([]);
  expect(run.turns).toBeGreaterThan(6000);
});

test('a VM that takes turns has the memory of one with a core of its own', () => {
  const own = new Map<number, PacketCore>();
  const run = simulated(WASM.make, { vanish: 0, packets: 2000 }, (simulation, core) => {
    // What VMs are told is told to cores of their own, too.
    const { swap } = simulation;
    const ofVm = () => {
      const known = own.get(swap.current) ?? WASM.make();
      if (!own.has(swap.current)) known.configure(swap.configOf(swap.current));
      own.set(swap.current, known);
      return known;
    };
    for (const step of ['encapsulate', 'decapsulate', 'learn'] as const) {
      const original = core[step].bind(core);
      core[step] = (first, count, now) => {
        const other = ofVm();
        other.bytes.set(
          core.bytes.subarray(abi.DESCRIPTORS, abi.DESCRIPTORS + abi.BATCH_SIZE * abi.DESCRIPTOR_SIZE),
          abi.DESCRIPTORS,
        );
        const end = abi.SLOTS + abi.BATCH_SIZE * 2048;
        other.bytes.set(core.bytes.subarray(abi.SLOTS, end), abi.SLOTS);
        other[step](first, count, now);
        return original(first, count, now);
      };
    }
    const expire = core.expire.bind(core);
    core.expire = (before) => {
      ofVm().expire(before);
      return expire(before);
    };
  });
  expect(run.failures.list).toEqual([]);
  expect(own.size).toBe(OPTIONS.vms);
  const parts = [
    [abi.CONFIG, abi.CHANGES + 4],
    [abi.REPLY_BUCKETS, abi.REPLIES],
    [abi.LEASE_BUCKETS, abi.SLOTS],
  ] as const;
  for (const [vm, core] of own) {
    run.swap.in(vm);
    for (const [start, end] of parts)
      expect(Buffer.compare(run.core.bytes.subarray(start, end), core.bytes.subarray(start, end)), `VM ${vm}`).toBe(0);
  }
});

/** Does `harm` after the core's n-th call of this kind. */
function onceAfter(
  step: 'encapsulate' | 'decapsulate' | 'learn',
  n: number,
  harm: (words: Int32Array, core: Core) => void,
) {
  return (_simulation: Simulation, core: Core) => {
    const original = core[step].bind(core);
    let calls = 0;
    core[step] = (first, count, now) => {
      const next = original(first, count, now);
      if (++calls === n) harm(new Int32Array(core.memory), core);
      return next;
    };
  };
}

const add = (at: number) => (_words: Int32Array, core: Core) => {
  const view = new DataView(core.memory);
  view.setFloat64(at, view.getFloat64(at, true) + 1, true);
};
const lessOne = (words: Int32Array) => {
  words[abi.MESSAGE_COUNTS / 4] = (words[abi.MESSAGE_COUNTS / 4] as number) - 1;
};

/** Does something to a message on its way that is `kind` of, once. */
function onTheWay(harm: (args: number[], words: Int32Array) => void) {
  return ({ network }: Simulation) => {
    const send = network.send.bind(network);
    let messages = 0;
    network.send = (sender, address, kind, number, words, at, length) => {
      const args = [sender, address, kind, number, at, length];
      const copy = words.slice(at, at + 512);
      args[4] = 0;
      if (++messages === 500) harm(args, copy);
      send(args[0], args[1], args[2], args[3], copy, args[4], args[5]);
    };
  };
}

describe('is broken on purpose, and seen to be', () => {
  test('or not', () => {
    expect(simulated(WASM.make, { vanish: 0 }).failures.list).toEqual([]);
  });

  test.each([
    {
      what: 'a core drops a packet and does not count it',
      change: onceAfter('encapsulate', 20, lessOne),
      of: [ENDS, COUNTERS, SUMS],
    },
    {
      what: 'a core delivers nothing of a packet',
      change: onceAfter('decapsulate', 20, lessOne),
      of: [ENDS, COUNTERS, SUMS],
    },
    {
      what: 'a core counts one packet too many',
      change: onceAfter('decapsulate', 9, add(abi.INBOUND_COUNTERS)),
      of: [COUNTERS, SUMS],
    },
    {
      what: 'a core counts a drop for another reason',
      change: onceAfter('encapsulate', 9, add(abi.OUTBOUND_COUNTERS + abi.COUNTERS_DROPS + 8)),
      of: [COUNTERS, SUMS],
    },
    {
      what: 'bytes are miscounted',
      change: onceAfter('encapsulate', 9, add(abi.OUTBOUND_COUNTERS + abi.COUNTERS_BYTES)),
      of: [COUNTERS],
    },
    {
      what: 'a reply is counted that nobody got',
      change: onceAfter('learn', 5, add(abi.OUTBOUND_COUNTERS + abi.COUNTERS_REPLIES)),
      of: [REPLIES],
    },
    {
      what: 'a verdict is another',
      change: onceAfter('encapsulate', 9, (words) => {
        words[(abi.DESCRIPTORS + abi.DESCRIPTOR_VERDICT) / 4] = abi.DROP_NOT_IPV4;
      }),
      of: [ENDS, VERDICTS, COUNTERS, SUMS],
    },
    {
      what: 'the network delivers to the wrong VM',
      change: onTheWay((args) => {
        args[1] = (((args[1] as number) - 0xc0a80001 + 1) % OPTIONS.vms) + 0xc0a80001;
      }),
      of: [VERDICTS],
    },
    {
      what: 'one bit of a payload flips on the way',
      change: onTheWay((args, words) => {
        const word = (args[5] as number) / 4 - 2;
        words[word] = (words[word] as number) ^ 0x100000;
      }),
      of: [BYTES],
    },
    {
      what: 'a packet arrives that was sent before',
      change: ({ network, ledger }: Simulation) => {
        const put = ledger.put.bind(ledger);
        let puts = 0;
        // The network is right to make a copy, but says nothing of it.
        ledger.copy = () => {};
        ledger.put = (number: number) => {
          if (++puts === 1) network.copies = 5;
          put(number);
        };
      },
      of: [ENDS],
    },
    {
      what: 'a VM leaves something in the core',
      change: ({ swap }: Simulation, core: Core) => {
        swap.opened = () => {};
        expect(core.tunnels.count).toBe(0);
      },
      of: [SWAP],
    },
  ])('$what', ({ change, of }) => {
    const run = simulated(WASM.make, { vanish: 0 }, change);
    expect(broken(run)).toEqual(expect.arrayContaining(of));
  });
});
