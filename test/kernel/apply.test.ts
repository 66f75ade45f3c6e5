/** Steps that are sysctls: a device that has to be there, and one that may be missing. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import { apply } from '../../src/machine/apply.ts';
import { Journal } from '../../src/machine/journal.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-apply-'));
afterAll(() => rmSync(folder, { recursive: true }));

const step = { kind: 'sysctl', device: 'no-such-device', name: 'forwarding', value: '1' } as const;
const options = { netlink: new Netlink(new FakeKernel().connect()), journal: new Journal(folder), onChange: () => {} };

test('a sysctl of a device that is not there is an error', () => {
  expect(() => apply([step], options)).toThrow(/ENOENT/);
});

test('unless there may be no such device', () => {
  apply([{ ...step, ifAny: true }], options);
  expect(options.journal.isEmpty).toBe(true);
});
