/** The files below /proc/sys that Inlay writes as things of their own. No other is written, whatever a journal says; guard.ts has its own list. */

/** By the folder that has one folder for each device. Whoever writes one more adds it here. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  'net/ipv4/conf': ['accept_local', 'accept_redirects', 'forwarding', 'rp_filter', 'send_redirects'],
  'net/ipv6/conf': ['disable_ipv6'],
};

/** Whether we write this file of this device, whose name has no slash. */
export function isSysctlName(name: string, device: string): boolean {
  return Object.entries(NAMES).some(
    ([folder, names]) =>
      name.startsWith(`${folder}/${device}/`) && names.includes(name.slice(`${folder}/${device}/`.length)),
  );
}

/** All of them are small numbers. */
export function isSysctlValue(value: unknown): value is string {
  return typeof value === 'string' && /^-?\d{1,10}$/.test(value);
}
