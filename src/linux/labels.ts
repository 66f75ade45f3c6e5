/** Labels, to which the jumps of eBPF programs and of socket filters go. */

/**
 * A place in a program. Text is for a place that several functions jump to. A symbol is for one that nothing
 * else jumps to: each is new.
 */
export type Label = string | symbol;

/**
 * How far a label is from the instruction number `from`, in instructions. Each line that is no label is one
 * instruction. Throws if the label is missing, or is there twice.
 */
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
