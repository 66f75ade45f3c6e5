/** The process of docker's plugin: where it listens, what it says, and its end. It can be restarted at any time. */
import { lstatSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import path from 'node:path';
import { errorCode, InlayError } from '../../errors.ts';
import { listenFds } from '../../linux/listen-fds.ts';
import { removeName } from '../../linux/own-file.ts';
import { createLog } from '../../log.ts';
import { limitedLog } from '../../log-limit.ts';
import { withContainers } from '../containers.ts';
import { requireMesh } from '../mesh.ts';
import { Endpoints } from './endpoints.ts';
import type { WithStore } from './method.ts';
import { type Call, PluginServer } from './server.ts';

/** Of the folder, as docker makes it. */
const FOLDER_MODE = 0o755;

export interface PluginOptions {
  runDir: string;
  socket: string;
}

/** Answers docker until SIGTERM or SIGINT. */
export async function runPlugin({ runDir, socket }: PluginOptions): Promise<void> {
  const log = createLog('info');
  const limited = limitedLog(log);
  const told = ({ method, failure }: Call) => {
    if (failure !== undefined) limited('warn', method, { method }, failure);
  };
  const server = new PluginServer(storeOf(runDir), told);
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  const [passed] = listenFds(process.env, process.pid);
  if (passed === undefined) await listenAt(server, socket);
  else await server.listen({ fd: passed });
  log.info({ socket: passed === undefined ? socket : `descriptor ${passed}`, runDir }, 'docker can use the mesh');
  await ended;
  await server.close();
}

/** The mesh is read for each request: the daemon may have been started again, with another one. */
function storeOf(runDir: string): WithStore {
  return (work) => {
    const mesh = requireMesh(runDir);
    return withContainers(mesh, (containers) => work(new Endpoints(containers, mesh)));
  };
}

/** Throws ERR_FAILED. */
async function listenAt(server: PluginServer, socket: string): Promise<void> {
  try {
    mkdirSync(path.dirname(socket), { recursive: true, mode: FOLDER_MODE });
    await removeDead(socket);
    await server.listen({ path: socket });
  } catch (cause) {
    if (cause instanceof InlayError) throw cause;
    throw new InlayError('ERR_FAILED', `socket ${socket}: ${errorCode(cause)}`, {
      hint: 'run it as root, or name another socket with --socket',
      cause,
    });
  }
}

/** Removes the socket that a killed plugin left. Throws ERR_FAILED if somebody listens there. */
async function removeDead(socket: string): Promise<void> {
  if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() !== true) return;
  const isDead = await new Promise<boolean>((resolve) => {
    const probe = connect(socket);
    probe.once('connect', () => resolve(false));
    probe.once('error', (error) => resolve(errorCode(error) === 'ECONNREFUSED'));
    probe.once('connect', () => probe.destroy());
  });
  if (!isDead) {
    throw new InlayError('ERR_FAILED', `another plugin listens at ${socket}`, {
      hint: 'end it first, or leave it to systemd: systemctl enable --now inlay-docker.socket',
    });
  }
  removeName(socket);
}
