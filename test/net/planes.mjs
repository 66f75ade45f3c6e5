/** Flags of `inlay up` that make each data plane; all of them work on this machine's kernel. */
export const PLANES = {
  wasm: ['--encapsulation', 'gre'],
  'wasm-udp': ['--encapsulation', 'gre-udp'],
  kernel: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'],
};
