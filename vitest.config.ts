import { defineConfig } from 'vitest/config';
import { THOROUGHNESS } from './test/runs.ts';

/** Of other folders than test/net: these need root too, for namespaces or for programs of the kernel. */
const inKernel = [
  'test/kernel/{fast-path*,mark,programs,source-check}.test.ts',
  'test/machine/{hostile-journals,journal,things}.test.ts',
  'test/netfilter/rule-sets.test.ts',
  'test/netlink/kernel.test.ts',
];

/** Of test/net: what takes longest, and says least about the next change. */
const long = ['test/net/{control,kernel-ways,remarks,segment-sizes,two-daemons,underlay-mtu}.test.ts'];

const project = (name: string, include: string[], exclude: string[] = []) => ({
  test: {
    ...{ name, include, exclude },
    // For machines that do much else.
    ...{ hookTimeout: 120_000, testTimeout: 120_000 * Math.max(1, THOROUGHNESS) },
    expect: { poll: { timeout: 15_000, interval: 25 } },
  },
});

export default defineConfig({
  test: {
    // The machine in which the kernel's GRE is tested has one processor: the other suites run beside it.
    maxWorkers: 3,
    // A message says what differs, not how many things.
    chaiConfig: { truncateThreshold: 2000 },
    // `npm test` runs all but heavy; .ci/run runs all, and `npm run test:smoke` on newer versions of Node.
    projects: [
      project('unit', ['test/**/*.test.ts'], ['test/{net,uml,heavy,runtimes}/**', ...inKernel]),
      project('net', ['test/net/**/*.test.ts', ...inKernel], long),
      project('uml', ['test/uml/**/*.test.ts']),
      project('heavy', ['test/heavy/**/*.test.ts', ...long]),
      // Real container runtimes, which Debian packages bring.
      project('runtimes', ['test/runtimes/**/*.test.ts']),
    ],
  },
});
