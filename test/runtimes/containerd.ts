/** A containerd on a VM, with an image of nothing but busybox, and its two ways in: ctr(8), and CRI as kubelet uses it. */
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import type { Root } from './runtime.ts';
import { ROOTFS_TAR } from './runtime.ts';

const SOCKET = '/run/containerd.sock';
export const IMAGE = 'docker.io/library/busybox:latest';
export const CTR = ['ctr', '-a', SOCKET] as const;

/** Without cgroups and AppArmor, which would be the machine's; the images are copied, because overlay does not take tmpfs twice. */
const CONFIGURATION = `version = 2
root = "/run/containerd-root"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "${SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "${IMAGE}"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
`;

/** Starts one, whose images are in both of its namespaces: ctr's own and Kubernetes'. */
export async function startContainerd(root: Root): Promise<void> {
  await root.write('/run/containerd.toml', CONFIGURATION);
  root.daemon('containerd', ['containerd', '-c', '/run/containerd.toml']);
  await root.sh(
    `for i in $(seq 200); do ${CTR.join(' ')} version >/dev/null 2>&1 && exit; sleep 0.1; done; tail -5 /run/containerd.log >&2; exit 1`,
  );
  await writeImage(root);
  for (const namespace of ['default', 'k8s.io'])
    await root.must([...CTR, '-n', namespace, 'image', 'import', '--snapshotter', 'native', '/run/image.tar']);
}

/** An OCI image archive of the root filesystem (OCI image specification 1.0): one layer. */
async function writeImage(root: Root): Promise<void> {
  const [digest, size] = (await root.sh(`sha256sum <${ROOTFS_TAR} | cut -d' ' -f1; stat -c %s ${ROOTFS_TAR}`))
    .trim()
    .split('\n');
  const blob = (value: unknown) => {
    const text = JSON.stringify(value);
    return { text, digest: createHash('sha256').update(text).digest('hex'), size: Buffer.byteLength(text) };
  };
  const layer = `sha256:${digest}`;
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const config = blob({
    architecture: { x64: 'amd64' }[process.arch as string] ?? process.arch,
    os: 'linux',
    config: { Cmd: ['/bin/busybox', 'sleep', '1000'] },
    rootfs: { type: 'layers', diff_ids: [layer] },
  });
  const manifest = blob({
    schemaVersion: 2,
    mediaType: type('manifest.v1+json'),
    config: { mediaType: type('config.v1+json'), digest: `sha256:${config.digest}`, size: config.size },
    layers: [{ mediaType: type('layer.v1.tar'), digest: layer, size: Number(size) }],
  });
  const index = {
    schemaVersion: 2,
    manifests: [
      {
        ...{ mediaType: type('manifest.v1+json'), digest: `sha256:${manifest.digest}`, size: manifest.size },
        annotations: { 'io.containerd.image.name': IMAGE, 'org.opencontainers.image.ref.name': 'latest' },
      },
    ],
  };
  await root.write('/run/image/oci-layout', '{"imageLayoutVersion":"1.0.0"}');
  await root.write('/run/image/index.json', JSON.stringify(index));
  for (const { text, digest: name } of [config, manifest]) await root.write(`/run/image/blobs/sha256/${name}`, text);
  await root.sh(`cp ${ROOTFS_TAR} /run/image/blobs/sha256/${digest}; tar -cf /run/image.tar -C /run/image .`);
}

/** What kubelet asks of a runtime. */
export interface Cri {
  /** Runs a sandbox and tells its id. */
  run(name: string, extra?: object): Promise<string>;
  /** Its address and its process. */
  look(id: string): Promise<{ address: string; pid: number }>;
  stop(id: string): Promise<void>;
  remove(id: string): Promise<void>;
  /** Why the network is not ready; undefined if it is. */
  obstacle(): Promise<string | undefined>;
  close(): void;
}

type Call = (request: object, done: (error: Error | null, response: never) => void) => void;

/** The root's /run is a folder of the lab's. */
export function openCri({ name, vms }: Root): Cri {
  const definition = loader.loadSync(fileURLToPath(new URL('cri.proto', import.meta.url)), { keepCase: true });
  const { runtime } = grpc.loadPackageDefinition(definition) as unknown as {
    runtime: { v1: { RuntimeService: new (...words: unknown[]) => Record<string, Call> & { close(): void } } };
  };
  const client = new runtime.v1.RuntimeService(
    `unix://${vms.lab.path(`/run/${name}.d/containerd.sock`)}`,
    grpc.credentials.createInsecure(),
  );
  const call = <T>(method: string, request: object) =>
    new Promise<T>((resolve, reject) => {
      client[method]?.(request, (error, response) => (error ? reject(error) : resolve(response)));
    });
  return {
    run: async (name, extra = {}) => {
      const metadata = { name, uid: `uid-${name}`, namespace: 'shop', attempt: 0 };
      const config = { metadata, hostname: name, linux: {}, ...extra };
      return (await call<{ pod_sandbox_id: string }>('RunPodSandbox', { config })).pod_sandbox_id;
    },
    look: async (id) => {
      const { status, info } = await call<{ status: { network: { ip: string } }; info: { info: string } }>(
        'PodSandboxStatus',
        { pod_sandbox_id: id, verbose: true },
      );
      return { address: status.network.ip, pid: JSON.parse(info.info).pid };
    },
    stop: (id) => call('StopPodSandbox', { pod_sandbox_id: id }),
    remove: (id) => call('RemovePodSandbox', { pod_sandbox_id: id }),
    obstacle: async () => {
      const { status } = await call<{ status: { conditions: { type: string; status: boolean; message: string }[] } }>(
        'Status',
        {},
      );
      const network = status.conditions.find(({ type }) => type === 'NetworkReady');
      return network?.status ? undefined : (network?.message ?? 'unknown');
    },
    close: () => client.close(),
  };
}
