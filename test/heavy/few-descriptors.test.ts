/** `up` with few file descriptors: whichever step finds none left, one line says so, nothing hangs and nothing is left behind. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { plainErrors } from '../../src/log.ts';
import { CLI } from '../net/mesh.ts';
import { missing, skip } from '../net/require.ts';

const skipped = skip('few descriptors', await missing());
/**
 * With fewer than the first, Node cannot even load the command line. With the last, all goes well: a daemon with four
 * queues holds 80 to 96, and its four workers open up to 60 more while they load their modules, all at the same time.
 */
const [FEWEST, MOST] = [26, 256];

describe.skipIf(skipped)('few descriptors', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.open();
    await lab.ip(undefined, [
      'link add eth0 type veth peer name cable',
      'link set eth0 up',
      'link set cable up',
      'address add 192.168.16.32/16 dev eth0',
    ]);
  });
  afterAll(() => lab?.close());

  /** Starts a daemon that may have `limit` descriptors, and ends it when it is ready. */
  async function up(limit: number, flags: readonly string[]) {
    const script = `ulimit -n ${limit}; exec timeout 30 "$@"`;
    const inlay = [process.execPath, CLI];
    const prefixes = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', '--run-dir', '/run/a'];
    const daemon = lab.start(undefined, ['sh', '-c', script, 'sh', ...inlay, 'up', ...prefixes, ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let stderr = '';
    let isReady = false;
    daemon.stderr?.setEncoding('utf8').on('data', async (chunk) => {
      stderr += chunk;
      const pid = /"pid":(\d+)[^\n]*"msg":"ready"/.exec(stderr)?.[1];
      // Once: at its very end a process handles no signals any more.
      if (pid && !isReady) {
        isReady = true;
        await lab.run(undefined, ['kill', pid]);
      }
    });
    const code = await new Promise((resolve) => daemon.once('close', resolve));
    return { code, isReady, stderr };
  }

  test.each([[['--queues', '4']], [['--queues', '4', '--encapsulation', 'gre-udp']]])(
    '%j',
    async (flags) => {
      const ready: number[] = [];
      const messages = new Set<string>();
      for (let limit = FEWEST; limit <= MOST; limit += limit < 64 ? 3 : 8) {
        const { code, isReady, stderr } = await up(limit, flags);
        expect(stderr, `limit ${limit}`).not.toMatch(/^\s+at |Error:|unhandled/im);
        const errors = plainErrors(stderr)
          .split('\n')
          .filter((line) => line.startsWith('inlay: '));
        expect([limit, code, errors.length]).toEqual(isReady ? [limit, 0, 0] : [limit, 1, 1]);
        if (isReady) ready.push(limit);
        for (const error of errors) messages.add(error.replace(/\/\S+/, 'FILE'));
        expect(JSON.parse(await lab.must(undefined, ['ip', '-j', 'link', 'show', 'type', 'tun']))).toEqual([]);
      }
      // Each of the steps has failed once: the sockets, the workers, what these load.
      expect(ready.length, [...messages].join('\n')).toBeGreaterThan(0);
      expect([...messages].some((message) => message.startsWith('inlay: EMFILE'))).toBe(true);
      // Only where sockets take more than the modules that are loaded at once before.
      if (flags.includes('gre-udp'))
        expect([...messages]).toContain(
          'inlay: a forwarding worker cannot be started: Worker initialization failure: EMFILE',
        );
      expect([...messages].some((message) => message.includes('cannot be started: EMFILE: too many open files'))).toBe(
        true,
      );
    },
    180_000,
  );
});
