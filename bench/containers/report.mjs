/** The results as tables: medians, ranges, and ratios within a round. */
import { figure, namesOf, rangeText, ratio } from '../rows.mjs';
import { median, table } from '../statistics.mjs';
import { LOCAL_PEERS, PEERS } from './peers.mjs';
import { containerRows, targetsOf } from './targets.mjs';

const MEASURES = [
  { key: 'tcp1', title: 'TCP x1', unit: 'Gbit/s', digits: 1 },
  { key: 'tcp4', title: 'TCP x4', unit: 'Gbit/s', digits: 1 },
  { key: 'udp', title: 'UDP 64 B', unit: 'kpps', digits: 0 },
  { key: 'rtt', title: 'RTT', unit: 'us', digits: 1 },
  { key: 'exchanges', title: 'TCP requests', unit: 'k/s', digits: 1 },
  { key: 'cpu', title: 'machine CPU', unit: 's/GB', digits: 2 },
];
const TITLES = Object.fromEntries(MEASURES.map(({ key, title }) => [key, title]));

/** The tables as `text`, what failed, and how many cores something else used at most. */
export function report(result) {
  const { rounds } = result;
  const sections = [
    conditions(result),
    ...overVms(result.whole, 'Over two VMs, super-packets whole', rounds),
    ...overVms(result.cut, 'Over two VMs, super-packets cut before the wire', rounds),
    ...onOneVm(result.local, rounds),
    ...scale(result),
    ...targets(result),
  ];
  const text = `${sections.map((section) => section.trimEnd()).join('\n\n')}\n`;
  return { text, ...conductOf(result) };
}

function conditions({ date, kernel, node, cpu, cores, rounds, seconds, skipped }) {
  const lines = [
    `${cpu}, ${cores} cores for both VMs and both containers; ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}.`,
    `Medians [and ranges] of ${rounds} rounds, ${seconds} s a test.`,
    ...[...new Set(skipped.map(({ why }) => why))].map((why) => {
      const labels = skipped.filter((each) => each.why === why).map(({ peer }) => PEERS[peer].label);
      return `Not measured, as ${why}: ${labels.join('; ')}.`;
    }),
  ];
  return lines.map(wrapped).join('\n');
}

/** Lines of at most 100 columns, as all pages have them. */
function wrapped(text) {
  return text.replace(/(?=.{101})(.{1,100}) /g, '$1\n');
}

function overVms(rows, title, rounds) {
  if (!rows) return [];
  return [
    `${title}:`,
    figuresTable(rows, PEERS),
    ...ratios(rows, PEERS, 'vxlan', rounds, 'As ratios to kernel vxlan routed to containers:'),
    ...ratios(rows, PEERS, 'routing', rounds, 'As ratios to routing without an overlay:'),
  ];
}

function onOneVm(rows, rounds) {
  if (!rows) return [];
  return [
    'On one VM:',
    figuresTable(rows, LOCAL_PEERS),
    ...ratios(rows, LOCAL_PEERS, 'routing', rounds, 'As ratios to routing:'),
  ];
}

function ratios(rows, peers, reference, rounds, title) {
  return namesOf(rows).includes(reference) ? [title, ratiosTable(rows, peers, reference, rounds)] : [];
}

function figuresTable(rows, peers) {
  return tableOf(
    rows,
    peers,
    MEASURES.map(({ title, unit }) => `${title} ${unit}`),
    (name, { key, digits }) => figure(rows, name, key)?.median.toFixed(digits) ?? 'failed',
  );
}

function ratiosTable(rows, peers, reference, rounds) {
  return tableOf(
    rows,
    peers,
    MEASURES.map(({ title }) => title),
    (name, { key }) => {
      const found = ratio(rows, name, key, reference);
      return found ? rangeText(found, 2, name === reference ? 1 : rounds) : '-';
    },
  );
}

function tableOf(rows, peers, titles, cell) {
  const lines = namesOf(rows).map((name) => [peers[name].label, ...MEASURES.map((measure) => cell(name, measure))]);
  return table([['', ...titles], ...lines]);
}

function scale({ vms, containers, rounds }) {
  const lines = [];
  if (vms?.rows) {
    const [one, all] = ['one', 'all'].map((name) => median(vms.rows.map((row) => row[name])).toFixed(0));
    lines.push([`UDP 64 B to ${vms.count} VMs in random order, against one`, `${all} kpps`, `${one} kpps`]);
  }
  if (containers?.after) {
    for (const [key, title, unit, digits] of [
      ['tcp', 'TCP x1', 'Gbit/s', 1],
      ['udp', 'UDP 64 B', 'kpps', 0],
    ]) {
      const of = (list) => `${median(list.map((each) => each[key])).toFixed(digits)} ${unit}`;
      const before = figure(containerRows(containers.before), 'dense', key);
      lines.push(
        [
          `${title} to a VM with ${containers.count} containers, against one`,
          of(containers.after.dense),
          of(containers.after.single),
        ],
        [`the same VMs with one container each, as a ratio`, rangeText(before, 2, rounds), ''],
      );
    }
  }
  return lines.length > 0 ? ['With the fast path (gre):', table([['', 'many', 'one'], ...lines])] : [];
}

function targets(result) {
  const found = targetsOf(result, TITLES);
  if (found.length === 0) return [];
  const lines = found.map(({ what, against, bounds, measured, isLess, reached }) => [
    `${what}, against ${against}`,
    ...bounds.map((bound) => `${isLess ? '<=' : '>='} ${bound}`),
    rangeText(measured, 2, result.rounds),
    reached[1] ? 'better' : reached[0] ? 'reached' : 'missed',
  ]);
  const head = ['gre with the fast path', 'to reach', 'better', 'measured', ''];
  return ['What was to be reached:', table([head, ...lines])];
}

function conductOf({ whole = [], cut = [], local = [], vms, containers }) {
  const failed = [
    ...[...whole, ...cut].filter(({ error }) => error).map(({ peer, error }) => `${PEERS[peer].label}: ${error}`),
    ...local.filter(({ error }) => error).map(({ peer, error }) => `on one VM, ${LOCAL_PEERS[peer].label}: ${error}`),
    ...[vms, containers].filter((part) => part?.error).map(({ error }) => error),
  ];
  const rows = [...whole, ...cut, ...local, vms, containers];
  const background = Math.max(0, ...rows.map((row) => row?.background ?? 0));
  return { failures: [...new Set(failed)], background };
}
