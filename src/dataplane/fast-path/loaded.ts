/** The programs and maps of the fast path, as one daemon has loaded them. They live on in the filters that run them. */
import type { Config } from '../../config/config.ts';
import { assemble } from '../../linux/bpf/assembler.ts';
import { loadProgram, programId } from '../../linux/bpf/program.ts';
import * as native from '../../linux/native.ts';
import type { NetworkPlan } from '../../machine/state.ts';
import { encapsulationOf, outerEcnOf } from '../wire-format.ts';
import { type Format, hasDecapFlags, inbound, outbound, type ProgramOptions } from './programs/programs.ts';
import { FastPathState } from './state.ts';

export class Loaded {
  readonly state: FastPathState;
  /** Descriptors. */
  readonly outbound: number;
  readonly inbound: number;
  /** The kernel's number of the inbound one. */
  readonly inboundId: number;

  /** Throws SystemError, such as EPERM without CAP_BPF; then nothing stays open. */
  constructor(config: Config, plan: NetworkPlan) {
    const options = { ...programOptions(config, plan), hasDecapFlags: hasDecapFlags() };
    const opened: number[] = [];
    this.state = new FastPathState(plan.mappings, plan.local);
    try {
      this.outbound = loadProgram(assemble(outbound(options, this.state.fds)), 'for the fast path, outbound');
      opened.push(this.outbound);
      this.inbound = loadProgram(assemble(inbound(options, this.state.fds)), 'for the fast path, inbound');
      opened.push(this.inbound);
      this.inboundId = programId(this.inbound);
    } catch (error) {
      for (const fd of opened) native.close(fd);
      this.state.close();
      throw error;
    }
  }

  /** What is attached stays. */
  close(): void {
    native.close(this.outbound);
    native.close(this.inbound);
    this.state.close();
  }
}

/** What the programs are made from: what the core is told, too. */
export function programOptions(
  config: Config,
  { mappings, local }: Pick<NetworkPlan, 'mappings' | 'local'>,
): ProgramOptions {
  const { key, ttl, dscp, clampMss } = config;
  const encapsulation = encapsulationOf(config);
  return {
    ...{ key, ttl, dscp, clampMss, mappings, local },
    ecn: outerEcnOf(config),
    ...{ encapsulation, receives: receivedBy(config) },
  };
}

/** As the data plane below: the core takes both formats, and the kernel's GRE device what comes by its FOU port, too, if it has one. */
export function receivedBy(config: Config): Format[] {
  return config.dataplane === 'kernel' && encapsulationOf(config) === 'gre' ? ['gre'] : ['gre', 'gre-udp'];
}
