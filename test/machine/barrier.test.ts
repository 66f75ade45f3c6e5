/** The barrier where the kernel cannot have all of it, or none; and how little is asked where nothing has changed. */
import os from 'node:os';
import { beforeEach, describe, expect, test } from 'vitest';
import type { OwnChain, OwnTables } from '../../src/linux/netfilter/own-tables.ts';
import { NetlinkError } from '../../src/linux/netlink/message.ts';
import { Barrier } from '../../src/machine/barrier/barrier.ts';
import { type BarrierFacts, barrierChains, barrierText } from '../../src/machine/barrier/rules.ts';
import type { Machine, Outcome } from '../../src/machine/machine.ts';
import type { Thing } from '../../src/machine/state.ts';
import { BarrierMemory, barrierKind, countsIn } from '../../src/machine/things/barrier.ts';
import type { Context } from '../../src/machine/things/kind.ts';
import { parseAccess } from '../../src/mesh/access.ts';
import { type Address, type Prefix, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';

const { EOPNOTSUPP, ENOENT, EPERM } = os.constants.errno;
const facts: BarrierFacts = {
  device: { name: 'inlay0', index: 7 },
  local: parseAddress('192.168.16.32') as Address,
  mappings: [new Mapping(parsePrefix('10.0.0.0/8') as Prefix, parsePrefix('192.168.0.0/16') as Prefix)],
  uplinks: [{ name: 'eth0', index: 2 }],
  access: [],
  users: [0],
  firstDynamicPort: 32768,
};
const thing = { kind: 'barrier', table: 'inlay-inlay0', facts } as const;
const isFib = (chains: readonly OwnChain[]) =>
  chains.some(({ rules }) => rules.some(({ expressions }) => expressions?.some(({ name }) => name === 'fib')));

/** Tables in memory. `refuses` is asked before they are written. */
class FakeTables {
  generation = 1;
  chains: readonly OwnChain[] | undefined;
  asked: string[] = [];
  refuses: (chains: readonly OwnChain[]) => number = () => 0;

  read(_: string, names: readonly string[]) {
    this.asked.push('read');
    return this.chains && names.map((name) => this.chains?.find((each) => each.name === name) as OwnChain);
  }

  replace(_: string, chains: readonly OwnChain[]) {
    this.asked.push('replace');
    const errno = this.refuses(chains);
    if (errno) throw new NetlinkError(errno, 'table inlay-inlay0');
    this.chains = chains;
    this.generation++;
  }

  remove() {
    if (this.refuses([])) throw new NetlinkError(this.refuses([]), 'table inlay-inlay0');
    const was = this.chains !== undefined;
    this.chains = undefined;
    return was;
  }
}

let tables: FakeTables;
let barrier: BarrierMemory;
let noted: Thing[];
const context = () =>
  ({
    ...{ barrier, links: new Map([['inlay0', 7]]) },
    note: (each: Thing) => noted.push(each),
  }) as unknown as Context;
const ensure = (wanted: BarrierFacts = facts) => barrierKind.ensure({ ...thing, facts: wanted }, context());

beforeEach(() => {
  tables = new FakeTables();
  barrier = new BarrierMemory(tables as unknown as OwnTables);
  noted = [];
});

describe('the table', () => {
  test('is made once, noted by its name alone, and not read while no rule set changes', () => {
    expect(ensure()).toBe('table ip inlay-inlay0 is missing');
    expect(noted).toEqual([{ kind: 'barrier', table: 'inlay-inlay0' }]);
    tables.asked = [];
    expect(ensure()).toBeUndefined();
    expect(tables.asked).toEqual([]);
    tables.generation++;
    expect(ensure()).toBeUndefined();
    expect(tables.asked).toEqual(['read']);
  });

  test('is put right where others changed it', () => {
    ensure();
    tables.chains = tables.chains?.map((chain) => ({ ...chain, rules: chain.rules.slice(1) }));
    tables.generation++;
    expect(ensure()).toBe('table ip inlay-inlay0 is not as it should be');
    expect(ensure()).toBeUndefined();
  });

  test('that follows the machine is no repair, and goes on counting', () => {
    ensure();
    const count = { name: 'counter', data: { packets: 3, bytes: 84 } } as const;
    tables.chains = tables.chains?.map((chain) => ({
      ...chain,
      rules: chain.rules.map(({ expressions = [], ...rest }) => ({
        ...rest,
        expressions: expressions.map((each) => (each.name === 'counter' ? count : each)),
      })),
    }));
    const before = countsIn(tables.chains ?? []);
    expect(before.get('forged-outer')?.packets).toBeGreaterThan(3);
    expect(ensure({ ...facts, uplinks: [] })).toBeUndefined();
    expect(tables.asked.at(-1)).toBe('replace');
    expect(countsIn(tables.chains ?? [])).toEqual(before);
  });

  test('of a kernel without nft_fib has all other rules', () => {
    tables.refuses = (chains) => (isFib(chains) ? ENOENT : 0);
    expect(ensure()).toBe('table ip inlay-inlay0 is missing');
    expect(isFib(tables.chains ?? [])).toBe(false);
    expect(tables.chains?.map(({ name }) => name)).toContain('prerouting');
    tables.asked = [];
    expect(ensure()).toBeUndefined();
    expect(tables.asked).toEqual([]);
  });

  test('of a kernel without nftables is not asked for again and again, and cannot be taken back', () => {
    tables.refuses = () => EOPNOTSUPP;
    expect(() => ensure()).toThrow('EOPNOTSUPP');
    tables.asked = [];
    expect(() => ensure()).toThrow('EOPNOTSUPP');
    expect(tables.asked).toEqual([]);
    expect(barrierKind.undo?.(thing, context())).toBe(false);
  });

  test('is printed as commands', () => {
    const commands = barrierKind.commands(thing);
    expect(commands).toEqual(["nft -f - <<'EOF'", ...barrierText('inlay-inlay0', barrierChains(facts, true)), 'EOF']);
    expect(commands).toContain('    iif "inlay0" goto overlay');
  });
});

describe('status', () => {
  const settle = (errno: number) => {
    const machine = { barrier, tables: { rules: () => [] }, netlink: {} } as unknown as Machine;
    const found = new Barrier(machine, { access: [] });
    found.settle({
      ...{ repaired: [], troubles: [] },
      refused: errno ? [{ thing, error: new NetlinkError(errno, 'table') }] : [],
    } as Outcome);
    return found;
  };

  test('says that it stands, and what it does without', () => {
    expect(settle(0)).toMatchObject({ status: { state: 'on', drops: {} }, troubles: [] });
    barrier.hasFib = false;
    expect(settle(0).status.obstacle).toContain('nft_fib');
  });

  test('says that a kernel without nftables has none: a remark, and no trouble', () => {
    const found = settle(EOPNOTSUPP);
    expect(found.status).toEqual({ state: 'off', obstacle: 'this kernel has no nftables (nf_tables)', drops: {} });
    expect(found.troubles).toEqual([]);
    expect(found.remarks(0)).toMatchObject([{ key: 'barrier' }]);
  });

  test('says what else the kernel answers, which is a trouble', () => {
    const found = settle(EPERM);
    expect(found.status).toMatchObject({ state: 'off', obstacle: expect.stringContaining('EPERM') });
    expect(found.troubles).toMatchObject([{ what: expect.stringContaining('EPERM') }]);
  });
});

describe('container-access', () => {
  test.each(['all', 'vm', 'vm:53', '192.168.0.2', '192.168.0.2:65535', '192.168.64.0/18', '192.168.64.0/18:1'])(
    '%s is an entry',
    (text) => expect(parseAccess(text)).toBeDefined(),
  );
  test.each([
    '',
    'vm:',
    'vm:0',
    'vm:65536',
    'vm:53:54',
    'all:53',
    '192.168.0.1/18',
    '192.168.0',
    'host',
    '192.168.0.2/33',
  ])('"%s" is none', (text) => expect(parseAccess(text)).toBeUndefined());
});
