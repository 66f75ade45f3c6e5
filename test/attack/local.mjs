/** What an unprivileged user of a VM could make root do, or not do, by the run directory. */
import { fileURLToPath } from 'node:url';
import { PLANES } from '../net/planes.mjs';
import { AS_NOBODY } from './tunnels.mjs';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const FOLDER = '/run/local';
const SECRET = `${FOLDER}/root-only/file`;
const EMPTY = `${FOLDER}/root-only/empty`;
const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
/** Runs `up` until it is ready, and then ends it; tells its exit code, or 0 if it got ready. */
const UNTIL_READY = `"$@" & daemon=$!
  for i in $(seq 200); do [ -S "$SOCKET" ] && break; kill -0 $daemon 2>/dev/null || break; sleep 0.05; done
  [ -S "$SOCKET" ] && ready=0; kill $daemon 2>/dev/null; wait $daemon; exit \${ready:-$?}`;

/** A namespace and a folder, in which the user `nobody` has its own run directory. */
async function withUser(w, work) {
  await w.lab.ip(undefined, ['netns add local']);
  await w.lab.ip('local', [
    'link set lo up',
    'link add eth0 type veth peer name peer',
    'link set peer up',
    'address add 192.168.99.9/16 dev eth0',
    'link set eth0 up',
  ]);
  const script = `mkdir -p ${EMPTY} && chmod 755 ${FOLDER} && chmod 700 ${FOLDER}/root-only && echo original >${SECRET}
    chmod 600 ${SECRET} && install -d -o 65534 -g 65534 ${FOLDER}/nobody && install -d -m 755 ${FOLDER}/root`;
  await w.lab.must('local', ['sh', '-c', script]);
  try {
    return await work({
      nobody: (text) => w.lab.must('local', [...AS_NOBODY, 'sh', '-c', text]),
      inlay: (folder, ...words) => {
        const runDir = `${FOLDER}/${folder}`;
        const command = [process.execPath, CLI, ...words, '--run-dir', runDir];
        const wait = ['env', `SOCKET=${runDir}/control.sock`, 'sh', '-c', UNTIL_READY, 'sh'];
        return w.lab.run('local', words[0] === 'up' ? [...wait, ...command] : command);
      },
      secret: () => w.lab.must('local', ['sh', '-c', `cat ${SECRET}; ls ${FOLDER}/root-only`]),
    });
  } finally {
    await w.lab.run('local', ['sh', '-c', `rm -rf ${FOLDER}`]);
    await w.lab.ip(undefined, ['netns del local']);
  }
}

const line = (thing, before) => JSON.stringify({ v: 1, op: 'add', owner: 'daemon', thing, before });
const sysctl = (name, value, before = 'written') =>
  line({ kind: 'sysctl', device: 'eth0', name, value, others: true }, before);
const inJournal = (text) => `printf '%s\\n' '${text}' >${FOLDER}/nobody/journal.jsonl`;
const FILES = 'journal.jsonl journal.jsonl.new journal.damaged changes.json vm lock control.sock';
/** What is put into the run directory. */
const JOURNALS = {
  'a file of root as a sysctl': inJournal(sysctl(`../..${SECRET}`, 'original')),
  'a folder of root as its own': inJournal(line({ kind: 'directory', path: EMPTY })),
  'symlinks under every name': `for name in ${FILES}; do ln -s ${SECRET} ${FOLDER}/nobody/$name; done`,
  'symlinks to files that are not there': `for name in ${FILES}; do ln -s ${FOLDER}/root-only/new-$name ${FOLDER}/nobody/$name; done`,
  'another file of root put aside': `printf x >${FOLDER}/nobody/journal.jsonl; ln -s ${SECRET} ${FOLDER}/nobody/journal.damaged`,
};

const journal = {
  who: 'L',
  means: 'the owner is looked at',
  title: 'a run directory of an unprivileged user, in which root runs `up` or `down`',
  planes: ['wasm'],
  isSlow: true,
  run: async (w) => {
    const open = [];
    for (const [name, script] of Object.entries(JOURNALS))
      for (const words of [['down'], UP])
        await withUser(w, async ({ nobody, inlay, secret }) => {
          await nobody(script);
          const flags = words === UP && w.plane === 'kernel' ? ['--dataplane', 'kernel'] : [];
          await inlay('nobody', ...words, ...flags);
          const text = await secret().catch(() => 'it is gone');
          if (text !== 'original\nempty\nfile\n') open.push(`${words[0]}, ${name}: ${text.trim().slice(0, 60)}`);
          await inlay('nobody', 'down');
        });
    return open;
  },
};

const lock = {
  who: 'L',
  means: 'mode 0600',
  title: 'the lock of a run directory that belongs to root',
  planes: ['wasm', 'kernel'],
  isSlow: true,
  run: (w) =>
    withUser(w, async ({ inlay }) => {
      const holder = w.lab.start('local', [...AS_NOBODY, 'flock', `${FOLDER}/root`, 'sleep', '60'], {
        stdio: 'ignore',
      });
      const file = w.lab.start('local', [...AS_NOBODY, 'flock', `${FOLDER}/root/lock`, 'sleep', '60'], {
        stdio: 'ignore',
      });
      try {
        await new Promise((resolve) => setTimeout(resolve, 300));
        const flags = PLANES[w.plane];
        const up = await inlay('root', ...UP, ...flags);
        const down = await inlay('root', 'down');
        return [
          ...(up.code === 0 ? [] : [`up ends with ${up.code}: ${up.stderr.trim().split('\n').at(-1)?.slice(0, 100)}`]),
          ...(down.code === 0 ? [] : [`down ends with ${down.code}`]),
        ];
      } finally {
        holder.kill('SIGKILL');
        file.kill('SIGKILL');
      }
    }),
};

/**
 * Every process of a network namespace can take the abstract names (unix(7)) of that namespace, long before a
 * daemon starts.
 */
const SQUAT = `
  const names = ['\\0inlay/inlay0', '\\0inlay/inlay0/1'];
  const { createServer } = await import('node:net');
  for (const name of names) createServer().on('error', () => {}).listen(name);
  setTimeout(() => {}, 60_000);`;

const squatted = {
  who: 'L',
  means: 'SO_PEERCRED',
  title: 'the abstract socket that a daemon holds for its device, taken before',
  planes: ['wasm', 'kernel'],
  isSlow: true,
  run: (w) =>
    withUser(w, async ({ inlay }) => {
      const words = [process.execPath, '--input-type=module', '-e', SQUAT];
      const holder = w.lab.start('local', [...AS_NOBODY, ...words], { stdio: 'ignore' });
      try {
        await w.lab.must('local', [
          'sh',
          '-c',
          'for i in $(seq 100); do grep -q inlay /proc/net/unix && exit; sleep 0.05; done',
        ]);
        const flags = PLANES[w.plane];
        const up = await inlay('root', ...UP, ...flags);
        await inlay('root', 'down');
        return up.code === 0 ? [] : [`up ends with ${up.code}`];
      } finally {
        holder.kill('SIGKILL');
      }
    }),
};

export const localAttacks = [journal, lock, squatted];
