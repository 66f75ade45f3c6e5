import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // The machine in which the kernel's GRE is tested has one processor: the other suites run beside it.
    maxWorkers: 2,
    include: ['test/**/*.test.ts'],
    hookTimeout: 60_000,
    testTimeout: 60_000,
  },
});
