/** Programs and maps as the kernel has them: numbers, filters that run them, and that nothing stays open that could not be used. */
import { readdirSync, readFileSync } from 'node:fs';
import os from 'node:os';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { SourceCheck } from '../../src/dataplane/check/source-check.ts';
import { Lab } from '../../src/demo/lab.ts';
import { assemble, exit, set } from '../../src/linux/bpf/assembler.ts';
import { loadProgram, programId } from '../../src/linux/bpf/program.ts';
import * as native from '../../src/linux/native.ts';
import { isOurs, OUR_FILTER } from '../../src/linux/netlink/traffic-control.ts';
import { SystemError } from '../../src/linux/system-error.ts';
import { ipv4, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { missing, skip } from '../net/require.ts';

/** How many system calls succeed before the others fail, and how many fail before that as if a signal had come. */
const calls = vi.hoisted(() => ({ left: Number.POSITIVE_INFINITY, signals: 0 }));
vi.mock('../../src/linux/native.ts', async (original) => {
  const actual = await original<typeof native>();
  return {
    ...actual,
    syscall: (...all: Parameters<typeof native.syscall>) => {
      if (calls.signals-- > 0) return -1;
      return calls.left-- > 0 ? actual.syscall(...all) : -1;
    },
    errno: () => (calls.signals >= 0 ? actual.EAGAIN : actual.errno()),
  };
});

const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>;
const OPTIONS = {
  mappings: [new Mapping(prefix('10.0.0.0/8'), prefix('192.168.0.0/16'))],
  local: ipv4(0xc0a81020),
  isVxlan: true,
  overhead: 50,
};
const PASS = assemble([set(0, -1), exit]);
const opened = () => readdirSync('/proc/self/fd').length;

function why(): string | undefined {
  try {
    native.close(loadProgram(PASS, 'for a test'));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
const isSkipped = skip('programs', why());
const hasNoLab = skip('filters', await missing());

/** Puts a program at lo, and prints its number and the filter that the kernel shows then. */
const ATTACH = `
  const from = (file) => import('${new URL('../../dist/', import.meta.url)}' + file);
  const { assemble, exit, set } = await from('linux/bpf/assembler.js');
  const { loadProgram, programId } = await from('linux/bpf/program.js');
  const { request } = await from('linux/netlink/message.js');
  const { Netlink } = await from('linux/netlink/netlink.js');
  const tc = await from('linux/netlink/traffic-control.js');
  const netlink = Netlink.open(0);
  const CREATE = 0x600;
  const lo = { ifindex: 1 };
  const clsact = { ...lo, handle: tc.CLSACT_HANDLE, parent: tc.TC_H_CLSACT, kind: 'clsact' };
  netlink.do(request(tc.RTM_NEWQDISC, CREATE, 'clsact', tc.trafficControl, clsact));
  const program = loadProgram(assemble([set(0, -1), exit]), 'for a test');
  const options = { fd: program, name: tc.OUR_FILTER, flags: tc.TCA_BPF_FLAG_ACT_DIRECT };
  const filter = { ...lo, handle: 1, parent: tc.CLSACT_INGRESS, info: (73 << 16) | 0x300, kind: 'bpf', options };
  netlink.do(request(tc.RTM_NEWTFILTER, CREATE, 'filter', tc.bpfFilter, filter));
  const dump = request(tc.RTM_GETTFILTER, 0, 'x', tc.trafficControl, { ...lo, parent: tc.CLSACT_INGRESS });
  const found = netlink.dump(dump, tc.bpfFilter).filter(({ options }) => options?.id !== undefined);
  for (const { options } of found) options.tag = Buffer.from(options.tag).toString('hex');
  const { readFileSync } = await import('node:fs');
  const info = readFileSync('/proc/self/fdinfo/' + program, 'utf8');
  process.stdout.write(JSON.stringify({ id: programId(program), info, found }));`;

describe.skipIf(isSkipped)('programs', () => {
  test('the number of a program is the one that the kernel shows', () => {
    const [one, two] = [loadProgram(PASS, 'for a test'), loadProgram(PASS, 'for a test')];
    try {
      const shown = (fd: number) => /^prog_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
      expect([one, two].map((fd) => String(programId(fd)))).toEqual([shown(one), shown(two)]);
      expect(programId(one)).not.toBe(programId(two));
    } finally {
      native.close(one);
      native.close(two);
    }
    expect(() => programId(0)).toThrow('bpf for the id of a program');
  });

  test('a program at which the kernel stops looking because of a signal is given to it again', () => {
    calls.signals = 2;
    native.close(loadProgram(PASS, 'for a test'));
    expect(calls.signals).toBeLessThan(0);
    calls.signals = 5;
    expect(() => loadProgram(PASS, 'for a test')).toThrow(SystemError);
    calls.signals = 0;
  });

  test.skipIf(hasNoLab)('a filter says which program it runs', async () => {
    const lab = await Lab.open();
    try {
      const said = await lab.must(undefined, [process.execPath, '--input-type=module', '-e', ATTACH]);
      const { id, info, found } = JSON.parse(said);
      const tag = /^prog_tag:\s*(\w{16})$/m.exec(info)?.[1];
      expect(found).toMatchObject([{ kind: 'bpf', options: { name: 'inlay', id, tag } }]);
      expect(isOurs(found[0])).toBe(true);
    } finally {
      await lab.close();
    }
  });

  test.each([
    { name: 'of another name', filter: { kind: 'bpf', options: { name: 'cilium' } } },
    { name: 'without a name', filter: { kind: 'bpf', options: {} } },
    { name: 'of another kind', filter: { kind: 'u32', options: { name: OUR_FILTER } } },
    { name: 'of another kind, as it is read', filter: { kind: 'flower', options: undefined } },
  ])('not ours: $name', ({ filter }) => expect(isOurs(filter)).toBe(false));
});

describe('what cannot be loaded', () => {
  afterEach(() => {
    calls.left = Number.POSITIVE_INFINITY;
    vi.restoreAllMocks();
  });

  test('where bpf(2) has no known number, the kernel seems to be without it', () => {
    vi.spyOn(os, 'arch').mockReturnValue('riscv64');
    const before = opened();
    let error: unknown;
    try {
      new SourceCheck(OPTIONS);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(SystemError);
    expect(error).toMatchObject({
      code: 'ENOSYS',
      syscall: 'bpf',
      message: 'ENOSYS: bpf has no known number on riscv64',
    });
    expect(opened()).toBe(before);
  });

  // Two maps, two programs.
  test.skipIf(isSkipped).each([0, 1, 2, 3])('after %i steps: nothing stays open', (steps) => {
    const before = opened();
    calls.left = steps;
    expect(() => new SourceCheck(OPTIONS)).toThrow(SystemError);
    expect(calls.left).toBe(-1); // Nothing was tried after that.
    expect(opened()).toBe(before);
  });

  test.skipIf(isSkipped)('closing closes all', () => {
    const before = opened();
    calls.left = 4;
    const check = new SourceCheck(OPTIONS);
    expect(opened()).toBe(before + 4);
    check.close();
    expect(opened()).toBe(before);
  });
});
