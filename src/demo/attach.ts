/**
 * Attaches the containers of one VM, all in one process. It runs in the VM's network namespace and hears on
 * standard input what to attach.
 */
import { readFileSync } from 'node:fs';
import type { AttachRequest } from '../containers/attachment.ts';
import { Containers } from '../containers/containers.ts';
import { parseAddress, parsePrefix } from '../mesh/address.ts';
import { Mapping } from '../mesh/mapping.ts';
import { report } from '../report.ts';

export interface AttachPlan {
  overlay: string;
  underlay: string;
  /** The VM's underlay address. */
  local: string;
  /** Bytes. */
  mtu: number;
  containers: AttachRequest[];
}

function attachAll({ overlay, underlay, local, mtu, containers }: AttachPlan): void {
  const [o, u, vm] = [parsePrefix(overlay), parsePrefix(underlay), parseAddress(local)];
  if (!o || !u || !vm) throw new Error(`no mesh: ${overlay} over ${underlay}, VM ${local}`);
  // No container comes back here, so no address has to cool down.
  const all = Containers.open({ mappings: [new Mapping(o, u)], local: vm, mtu, coolDown: 0 });
  for (const each of containers) all.attach(each);
  all.close();
}

try {
  attachAll(JSON.parse(readFileSync(0, 'utf8')));
} catch (error) {
  process.exitCode = report(error);
}
