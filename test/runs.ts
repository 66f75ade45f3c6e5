/** How often properties are tried with random values. */

/** INLAY_RUNS=10 tries each ten times as often, as .ci/run does: the quick loop is to be quick. */
export const THOROUGHNESS = Number(process.env['INLAY_RUNS'] ?? 1);

export const runs = (usual: number): number => Math.ceil(usual * THOROUGHNESS);
