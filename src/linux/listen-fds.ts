/** Sockets that systemd opened for this process, so that there is always one to connect to (sd_listen_fds(3)). */

/** The first of them (SD_LISTEN_FDS_START). */
const FIRST = 3;

/** Descriptors of the sockets that were passed to this process. Variables that were meant for another process say nothing. */
export function listenFds(env: NodeJS.ProcessEnv, pid: number): number[] {
  if (env['LISTEN_PID'] !== String(pid)) return [];
  const count = /^\d{1,4}$/.test(env['LISTEN_FDS'] ?? '') ? Number(env['LISTEN_FDS']) : 0;
  return Array.from({ length: count }, (_, i) => FIRST + i);
}
