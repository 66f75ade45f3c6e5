/** Who cuts the TCP super-packets of GRE: the core, or the kernel, which can only where packets that it forwards are not dropped. */
import { OFFLOAD_GRE_SEGMENT } from '../../core/abi.ts';
import { overhead } from '../../core/core.ts';
import type { DataPlaneOptions } from '../../dataplane.ts';
import { errorCode, InlayError } from '../../errors.ts';
import { forwardObstacle, isReversePathStrict } from './forward-obstacle.ts';
import { attachGreSegmentation } from './gre-segmentation.ts';

/** How often it is looked whether a firewall has come or gone, in ms: a TCP connection survives the time in between. */
const INTERVAL = 1000;

export class Segmentation {
  #by: 'core' | 'kernel' = 'core';
  readonly #log: DataPlaneOptions['log'];
  readonly #onChange: (offload: number) => void;
  #timer: NodeJS.Timeout | undefined;

  /** `onChange` is told the new OFFLOAD_ bit. Throws ERR_FAILED if the kernel is to cut and cannot. */
  constructor(options: DataPlaneOptions, onChange: (offload: number) => void) {
    this.#log = options.log;
    this.#onChange = onChange;
    const { greSegmentation, coreConfig } = options;
    if (greSegmentation === 'core' || coreConfig.encapsulation === 'gre-udp') return;
    try {
      attachGreSegmentation(options.device, overhead('gre', coreConfig.key !== undefined));
    } catch (cause) {
      if (greSegmentation === 'kernel') throw cannotCut(cause);
      this.#log.info(
        { error: errorCode(cause) },
        'the core cuts super-packets: this kernel does not let us have it do so',
      );
      return;
    }
    if (greSegmentation === 'kernel') {
      if (isReversePathStrict()) throw isDropped();
      this.#by = 'kernel';
    } else {
      this.#look();
      this.#timer = setInterval(() => this.#look(), INTERVAL).unref();
    }
  }

  get by(): 'core' | 'kernel' {
    return this.#by;
  }

  /** The OFFLOAD_ bit for the core. */
  get offload(): number {
    return this.#by === 'kernel' ? OFFLOAD_GRE_SEGMENT : 0;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const obstacle = forwardObstacle();
    const by = obstacle === undefined ? 'kernel' : 'core';
    if (by === this.#by) return;
    this.#by = by;
    this.#log.info({ ...(obstacle ? { obstacle } : {}) }, `the ${by} cuts super-packets`);
    this.#onChange(this.offload);
  }
}

function cannotCut(cause: unknown): InlayError {
  return new InlayError('ERR_FAILED', `gre-segmentation kernel: this kernel does not let us: ${errorCode(cause)}`, {
    hint: 'it needs Linux 6.6 and CAP_BPF (or root); or --gre-segmentation core',
    cause,
  });
}

function isDropped(): InlayError {
  return new InlayError(
    'ERR_FAILED',
    'net.ipv4.conf.all.rp_filter is 1: packets that the kernel is to cut would be dropped',
    { hint: 'sysctl -w net.ipv4.conf.all.rp_filter=2, or --gre-segmentation core' },
  );
}
