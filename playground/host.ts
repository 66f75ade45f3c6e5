/** The VM that the page plays: what the state tells its core, or what is wrong with that. */
import { type CoreConfig, overhead, type PacketCore } from '../src/core/index.ts';
import { formatAddress } from '../src/mesh/address.ts';
import type { Mapping } from '../src/mesh/mapping.ts';
import { type Answer, answer, nthVm, numberOf, read, vmOf } from './mesh.ts';
import { type Example, examplesOf } from './packet/examples.ts';
import type { State } from './state.ts';

export interface Host {
  core: PacketCore;
  /** Undefined where something is wrong. */
  config: CoreConfig | undefined;
  examples: Example[];
  errors: { local?: string; key?: string; underlayMtu?: string };
}

export function hostOf(state: State, mesh: Answer<Mapping>, core: PacketCore): Host {
  const errors: Host['errors'] = {};
  const key = state.key.trim() === '' ? { value: undefined } : answer(() => read('key', state.key));
  const underlayMtu = answer(() => read('underlay-mtu', state.underlayMtu));
  if ('error' in key) errors.key = key.error;
  if ('error' in underlayMtu) errors.underlayMtu = underlayMtu.error;
  const none = { core, config: undefined, examples: [], errors };
  if ('error' in mesh) return none;
  const mapping = mesh.value;
  const vm = vmOf(mapping, state.local);
  if ('error' in vm) {
    errors.local = `${vm.error}; a VM of this mesh is ${formatAddress(nthVm(mapping, 0))}`;
    return none;
  }
  if ('error' in key || 'error' in underlayMtu) return none;
  const options = { key: key.value, greChecksum: state.checksum, greSequence: state.sequence };
  const config = {
    ...options,
    local: numberOf(vm.value),
    encapsulation: state.encapsulation,
    mtu: underlayMtu.value - overhead(state.encapsulation, options),
    mappings: [
      {
        ...{ overlay: numberOf(mapping.overlay), overlayLength: mapping.overlay.length },
        ...{ underlay: numberOf(mapping.underlay), underlayLength: mapping.underlay.length },
      },
    ],
  };
  return { core, config, examples: examplesOf(mapping, vm.value, config, core), errors };
}
