import { defineConfig } from 'vitest/config';

const common = { hookTimeout: 60_000, testTimeout: 60_000 };

export default defineConfig({
  test: {
    // The machine in which the kernel's GRE is tested has one processor: the other suites run beside it.
    maxWorkers: 2,
    // `npm test` runs the first; .ci/run runs both.
    projects: [
      { test: { ...common, name: 'main', include: ['test/**/*.test.ts'], exclude: ['test/heavy/**'] } },
      { test: { ...common, name: 'heavy', include: ['test/heavy/**/*.test.ts'] } },
    ],
  },
});
