/** Numbers as people read them. */

const PREFIXES = ['', 'k', 'M', 'G', 'T'];
const [MINUTE, HOUR, DAY] = [60, 3600, 86_400];

/** With thousands separators: 1,234,567. */
export function count(value: number): string {
  return value.toLocaleString('en-US');
}

/** `1 packet`, `2 packets`. */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

/** Three digits and a decimal prefix: 12.3 Mbit/s, 999 B. */
export function scaled(value: number, unit: string): string {
  let rest = value;
  let prefix = 0;
  // 999.5 would become 1000.
  for (; rest >= 999.5 && prefix < PREFIXES.length - 1; prefix++) rest /= 1000;
  const digits = prefix === 0 || rest >= 99.95 ? 0 : rest >= 9.995 ? 1 : 2;
  return `${rest.toFixed(digits)} ${PREFIXES[prefix]}${unit}`;
}

/** In its two largest units: 3 d 4 h, 5 min 12 s, 8 s. */
export function duration(seconds: number): string {
  const s = Math.round(seconds);
  const parts = [
    [Math.floor(s / DAY), 'd'],
    [Math.floor((s % DAY) / HOUR), 'h'],
    [Math.floor((s % HOUR) / MINUTE), 'min'],
    [s % MINUTE, 's'],
  ] as const;
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return '0 s';
  const shown = parts.slice(first, first + 2).filter(([value]) => value > 0);
  return shown.map(([value, unit]) => `${value} ${unit}`).join(' ');
}
