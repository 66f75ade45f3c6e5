import { defineConfig } from 'vitest/config';
import { THOROUGHNESS } from './test/runs.ts';

/** In other folders than test/net, and for the kernel itself: it runs their programs, and their namespaces are set up in it. */
const inKernel = [
  'test/kernel/{mark,programs,source-check}.test.ts',
  'test/machine/{journal,things}.test.ts',
  'test/netlink/kernel.test.ts',
];

const project = (name: string, include: string[], exclude: string[] = []) => ({
  test: { name, include, exclude, hookTimeout: 120_000, testTimeout: 120_000 * Math.max(1, THOROUGHNESS) },
});

export default defineConfig({
  test: {
    // The machine in which the kernel's GRE is tested has one processor: the other suites run beside it.
    maxWorkers: 2,
    // `npm test` runs the first three; .ci/run runs all.
    projects: [
      project('unit', ['test/**/*.test.ts'], ['test/{net,uml,heavy}/**', ...inKernel]),
      project('net', ['test/net/**/*.test.ts', ...inKernel]),
      project('uml', ['test/uml/**/*.test.ts']),
      project('heavy', ['test/heavy/**/*.test.ts']),
    ],
  },
});
