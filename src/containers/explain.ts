/** What the kernel's error means for whoever attaches. */
import { NetlinkError } from '../linux/netlink/message.ts';
import type { Identity } from './alias.ts';
import type { Namespace } from './namespace.ts';
import { ContainerError } from './reasons.ts';

/** What the kernel was asked for, and what that needs. */
const STEPS = {
  link: { what: 'make a veth', needs: 'attaching needs CAP_NET_ADMIN and CAP_SYS_ADMIN' },
  host: { what: 'set up the veth', needs: 'attaching needs CAP_NET_ADMIN and CAP_SYS_ADMIN' },
  inside: { what: 'set up the container', needs: 'attaching needs CAP_NET_ADMIN and CAP_SYS_ADMIN' },
  detach: { what: 'detach the container', needs: 'detaching needs CAP_NET_ADMIN' },
} as const;
export type Step = keyof typeof STEPS;
/** That a device is not there any more. */
const GONE = ['ENODEV', 'ENXIO'];

export function explain(
  error: unknown,
  step: Step,
  identity?: Pick<Identity, 'ifname'>,
  namespace?: Namespace,
): unknown {
  if (!(error instanceof NetlinkError)) return error;
  const { code, message } = error;
  const options = { cause: error };
  if (code === 'EPERM' || code === 'EACCES') {
    const { what, needs } = STEPS[step];
    return new ContainerError('permission', `no permission to ${what}`, { hint: needs, ...options });
  }
  if (step === 'link' && code === 'EOPNOTSUPP')
    return new ContainerError('no-veth', 'this kernel has no veth devices', { hint: 'modprobe veth', ...options });
  if (step === 'link' && code === 'EEXIST' && identity)
    return new ContainerError(
      'interface-exists',
      `namespace ${namespace?.name} has an interface ${identity.ifname} already`,
      {
        hint: 'choose another name with --ifname, or remove it',
        ...options,
      },
    );
  // The device goes with its namespace; or somebody else removed it.
  if ((step === 'host' || step === 'inside') && GONE.includes(code) && namespace)
    return new ContainerError(
      'namespace-gone',
      `interface ${identity?.ifname} of namespace ${namespace.name} went meanwhile (${message})`,
      options,
    );
  return new ContainerError('system', message, options);
}
