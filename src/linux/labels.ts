/** Labels, to which the jumps of eBPF programs and of socket filters go. */

/** A place in a program. Text names one that several functions jump to; a symbol is a fresh one, which no other place of the program can be confused with. */
export type Label = string | symbol;

/** For lines of which all that are not labels are an instruction each: how far a label is from the instruction number `from`. Throws where no label or two are. */
export function distancesIn(lines: readonly object[]): (label: Label, from: number) => number {
  const places = new Map<Label, number>();
  let count = 0;
  for (const line of lines) {
    if (!isLabel(line)) count++;
    else if (places.has(line.label)) throw new Error(`label ${nameOf(line.label)} is there twice`);
    else places.set(line.label, count);
  }
  return (label, from) => {
    const place = places.get(label);
    if (place === undefined) throw new Error(`no label ${nameOf(label)}`);
    return place - from;
  };
}

export function nameOf(label: Label): string {
  return typeof label === 'symbol' ? (label.description ?? '') : label;
}

function isLabel(line: object): line is { label: Label } {
  return 'label' in line;
}
