/** The daemon's run directory, unless it is said: for those who load nothing else of the configuration. */
export const DEFAULT_RUN_DIR = '/run/inlay';
