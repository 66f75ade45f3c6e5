/** What the simulation says in the end: what a packet costs as VMs grow, what became of all packets, and whether the invariants hold. */
import { table } from '../statistics.mjs';
import { INVARIANTS } from './failures.mjs';

export const number = (n) => Math.round(n).toLocaleString('en');

/** Answers the text, and a line for each failure. */
export function report(runs, options, machine) {
  const columns = runs.map(({ vms }) => `${number(vms)} VM${vms === 1 ? '' : 's'}`);
  const text = [
    `${machine}, core ${options.core}, seed ${options.seed}\n\n`,
    table([['', ...columns], ...costs(runs)]),
    `\nWhat became of the packets, and of the copies that the network made:\n\n`,
    table([['', ...columns], ...ends(runs)]),
    `\nWhat the network saw:\n\n`,
    table([['', ...columns], ...seen(runs)]),
    `\nInvariants, and on how many occasions each was checked:\n\n`,
    table([['', ...columns], ...invariants(runs)]),
    `\nThe same seed and options give the same digest on every core: ${runs.map(({ digest }) => digest).join(', ')}\n`,
  ].join('');
  return { text, failures: runs.flatMap(failuresOf) };
}

function costs(runs) {
  const row = (name, cell) => [name, ...runs.map(cell)];
  return [
    row('packets', ({ sent }) => number(sent)),
    row('ns a packet', ({ time }) => number(time)),
    row('ns of CPU time a packet', ({ cpu }) => number(cpu)),
    row('packets that a VM sends in a turn', ({ batch }) => number(batch)),
    row('turns, for each of which a VM is put into the core', ({ turns }) => number(turns)),
    row('bytes of state a VM', ({ state }) => number(state)),
    row('tunnels a VM', ({ tunnels }) => tunnels.toFixed(1)),
    row('memory of the process at most, MB', ({ memory }) => number(memory / 1e6)),
    row('seconds in all', ({ seconds }) => seconds.toFixed(1)),
  ];
}

function ends(runs) {
  const names = [...new Set(runs.flatMap((run) => run.ends.map(({ name }) => name)))];
  const countOf = (run, name) => run.ends.find((end) => end.name === name)?.count ?? 0;
  return [
    ...names.map((name) => [name, ...runs.map((run) => number(countOf(run, name)))]),
    ['all', ...runs.map((run) => number(run.ends.reduce((total, { count }) => total + count, 0)))],
    ['sent, and copied', ...runs.map(({ sent, copies }) => number(sent + copies))],
  ];
}

function seen(runs) {
  const rows = {
    'packets from VMs': ({ network }) => network.put,
    'forged packets': ({ network }) => network.forged,
    copies: ({ network }) => network.copied,
    lost: ({ network }) => network.lost,
    'too long for the path': ({ network }) => network.tooLong,
    'to nobody': ({ network }) => network.nobody,
    'to VMs that had vanished': ({ network }) => network.vanished,
    arrived: ({ network }) => network.arrived,
    'ICMP messages to VMs, of the network': ({ icmp }) => icmp.made,
    'ICMP messages to VMs, forged': ({ icmp }) => icmp.forged,
    "containers' packets in fragments": ({ fragmented }) => fragmented,
  };
  return Object.entries(rows).map(([name, of]) => [name, ...runs.map((run) => number(of(run)))]);
}

function invariants(runs) {
  return INVARIANTS.map((name, invariant) => [
    name,
    ...runs.map(({ failures, counts }) =>
      failures.some((failure) => failure.invariant === invariant) ? 'BROKEN' : number(counts[invariant]),
    ),
  ]);
}

function failuresOf({ vms, failures }) {
  return failures.map(
    ({ invariant, what, count, example }) =>
      `${vms} VMs: ${what} (${count} time${count === 1 ? '' : 's'}; first ${JSON.stringify(example)}). Broken: ${INVARIANTS[invariant]}.`,
  );
}
