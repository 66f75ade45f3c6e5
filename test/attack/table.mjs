/** The table of SECURITY.md: who can do what, and what stops it. */

import { limitOf } from './attacks.mjs';

const KINDS = { T: 'tenant', V: 'compromised VM', U: 'host on the underlay', L: 'local user' };

/** Prints the results in Markdown; true if nothing is open but what a limit says. */
export function printTable(results, planes) {
  const rows = [...results].filter(([, byPlane]) => Object.keys(byPlane).length > 0);
  const isRight = rows.every(([attack, byPlane]) =>
    Object.entries(byPlane).every(([plane, { open }]) => open.length === 0 || limitOf(attack, plane) !== undefined),
  );
  const lines = [
    ['who', 'attack', ...planes],
    ['---', '---', ...planes.map(() => '---')],
    ...rows.map(([attack, byPlane]) => [
      attack.who,
      attack.title,
      ...planes.map((plane) => cell(attack, plane, byPlane[plane])),
    ]),
  ];
  process.stdout.write(lines.map((cells) => `| ${cells.join(' | ')} |\n`).join(''));
  process.stdout.write(
    `\n${Object.entries(KINDS)
      .map(([letter, kind]) => `${letter}: ${kind}`)
      .join('; ')}\n`,
  );
  return isRight;
}

/** What stops it: counters, or where nothing counts what the attack says; for nothing takes it at all. */
export const stoppedBy = ({ means = 'nothing takes it' }, by) => (by.length > 0 ? by.join(', ') : means);

function cell(attack, plane, result) {
  if (!result) return '-';
  if (result.open.length === 0) return stoppedBy(attack, result.by);
  const limit = limitOf(attack, plane);
  return limit === undefined ? '**open**' : `open: ${limit}`;
}
