/**
 * What of a VM counts packets that it does not let through: the data plane by reason, our nftables table by
 * rule, and the kernel.
 */
const KERNEL = {
  netstat: { IPReversePathFilter: 'rp_filter' },
};

/** All counters of both VMs, by name. */
export async function counters(w) {
  const all = {};
  const add = (name, value) => {
    if (value > 0) all[name] = (all[name] ?? 0) + value;
  };
  for (const vm of w.mesh.vms) {
    const status = await w.status(vm);
    for (const direction of ['outbound', 'inbound', 'icmp'])
      for (const [reason, count] of Object.entries(status[direction]?.drops ?? {})) add(reason, count);
    for (const [rule, count] of await rules(w, vm.name)) add(`nft ${rule}`, count);
    for (const [file, names] of Object.entries(KERNEL)) {
      const values = kernelCounters(await w.sh(vm.name, `cat /proc/net/${file}`));
      for (const [name, text] of Object.entries(names)) add(`kernel ${text}`, values[name] ?? 0);
    }
  }
  return all;
}

/** Those that rose. */
export const risen = (before, after) => Object.keys(after).filter((name) => after[name] > (before[name] ?? 0));

async function rules(w, vm) {
  const { code, stdout } = await w.lab.run(vm, ['nft', '-j', 'list', 'table', 'ip', 'inlay-inlay0']);
  if (code !== 0) return [];
  return JSON.parse(stdout).nftables.flatMap(({ rule, counter }) => {
    if (counter) return [[counter.name, counter.packets]];
    const counts = rule?.expr.find((each) => each.counter)?.counter;
    return counts ? [[rule.comment ?? `rule ${rule.handle}`, counts.packets]] : [];
  });
}

/** /proc/net/netstat and /proc/net/snmp: a line of names and a line of values for each protocol. */
function kernelCounters(text) {
  const lines = text
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  const all = {};
  for (let i = 0; i + 1 < lines.length; i += 2)
    for (const [k, name] of lines[i].entries()) all[name] ??= Number(lines[i + 1][k]);
  return all;
}
