/** JSON with bytes in it: as strings that begin with `hex:`, as ask.mjs and golden.json have them. */

export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, each) =>
    each instanceof Uint8Array ? `hex:${Buffer.from(each).toString('hex')}` : each,
  );
}

export function fromJson(json: string): unknown {
  return JSON.parse(json, (_, each) =>
    typeof each === 'string' && each.startsWith('hex:') ? Uint8Array.from(Buffer.from(each.slice(4), 'hex')) : each,
  );
}
