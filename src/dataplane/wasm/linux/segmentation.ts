/** Who cuts the TCP super-packets of GRE: the core, or the kernel, which can only where packets that it forwards are not dropped. */
import { OFFLOAD_GRE_SEGMENT } from '../../../core/abi.ts';
import { overhead } from '../../../core/config.ts';
import { InlayError } from '../../../errors.ts';
import { bpfObstacle } from '../../../linux/bpf/obstacle.ts';
import * as native from '../../../linux/native.ts';
import type { EngineOptions, Segmenter } from '../engine.ts';
import { forwardObstacle, type StrictSysctl, strictSysctl } from './forward-obstacle.ts';
import { attachGreSegmentation } from './gre-segmentation.ts';

/** How often it is looked whether a firewall has come or gone, in ms: a TCP connection survives the time in between. */
const INTERVAL = 1000;

export class Segmentation {
  #segmenter: Segmenter = { by: 'core' };
  readonly #device: string;
  readonly #log: EngineOptions['log'];
  /** Whether it is up to what `forwardObstacle` says. */
  readonly #isAuto: boolean;
  #timer: NodeJS.Timeout | undefined;
  /** Holds the program at the device. */
  #attachment = -1;

  /** For a device that is not up yet. Throws ERR_FAILED if the kernel is to cut and cannot. */
  constructor({ device, log, greSegmentation, coreConfig }: EngineOptions) {
    this.#device = device;
    this.#log = log;
    this.#isAuto = false;
    if (greSegmentation === 'core' || coreConfig.encapsulation === 'gre-udp') return;
    if (coreConfig.greChecksum || coreConfig.greSequence) {
      this.#set({ by: 'core', obstacle: 'the kernel does not make GRE checksums and sequence numbers for us' });
      return;
    }
    try {
      this.#attachment = attachGreSegmentation(device, overhead('gre', coreConfig));
    } catch (cause) {
      const error = bpfObstacle(cause);
      if (greSegmentation === 'kernel') throw cannotCut(error, cause);
      this.#set({ by: 'core', obstacle: `the kernel was not given the program for it: ${error}` });
      return;
    }
    if (greSegmentation === 'kernel') this.#segmenter = { by: 'kernel' };
    else this.#isAuto = true;
  }

  get segmenter(): Segmenter {
    return this.#segmenter;
  }

  /** Whether the kernel may forward what is written back to the device. */
  get reinjects(): boolean {
    return this.#isAuto || this.#segmenter.by === 'kernel';
  }

  /** The OFFLOAD_ bit for the core. */
  get offload(): number {
    return this.#segmenter.by === 'kernel' ? OFFLOAD_GRE_SEGMENT : 0;
  }

  /** To be called when the device is set up; from now on `onChange` is told the OFFLOAD_ bit whenever it changes. Throws ERR_FAILED if the kernel is to cut and cannot. */
  watch(onChange: (offload: number) => void): void {
    if (this.#isAuto) {
      const look = () => this.#look(onChange);
      look();
      this.#timer = setInterval(look, INTERVAL).unref();
    } else if (this.#segmenter.by === 'kernel') {
      const strict = strictSysctl(this.#device);
      if (strict) throw wouldBeDropped(strict);
    }
  }

  close(): void {
    clearInterval(this.#timer);
    if (this.#attachment >= 0) native.close(this.#attachment);
    this.#attachment = -1;
  }

  #look(onChange: (offload: number) => void): void {
    const before = this.#segmenter.by;
    const obstacle = forwardObstacle(this.#device);
    const next: Segmenter = obstacle === undefined ? { by: 'kernel' } : { by: 'core', obstacle };
    if (next.by === before && this.#timer) this.#segmenter = next;
    else this.#set(next);
    if (next.by !== before) onChange(this.offload);
  }

  #set(segmenter: Segmenter): void {
    this.#segmenter = segmenter;
    this.#log.info({ obstacle: segmenter.obstacle }, `the ${segmenter.by} cuts super-packets`);
  }
}

function cannotCut(error: string, cause: unknown): InlayError {
  return new InlayError('ERR_FAILED', `gre-segmentation kernel: this kernel does not let us: ${error}`, {
    hint: 'it needs Linux 6.6 and CAP_BPF (or root); or --gre-segmentation core',
    cause,
  });
}

function wouldBeDropped({ name, value, wanted }: StrictSysctl): InlayError {
  return new InlayError('ERR_FAILED', `${name} is ${value}: packets that the kernel is to cut would be dropped`, {
    hint: `sysctl -w ${name}=${wanted}, or --gre-segmentation core`,
  });
}
