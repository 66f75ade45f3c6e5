/** playground: a page that runs the packet core in the browser, served to this machine alone or written to a folder. */
import { type Command, InvalidArgumentError } from 'commander';
import { PLAYGROUND } from '../installation.ts';
import { example } from './options.ts';
import { writePlayground } from './playground-folder.ts';

export function addPlaygroundCommand(program: Command): void {
  const command = program
    .command('playground')
    .description('serve a page to this machine that shows addresses bit by bit, and what the core makes of packets')
    .option('--port <NUMBER>', 'TCP port at 127.0.0.1 (default: one that is free)', port, 0)
    .option('--out <DIR>', 'write the files to a folder instead, for any web server');
  example(command, 'playground', 'playground --port 8080', 'playground --out public/inlay');
  command.action(async ({ port, out }: { port: number; out?: string }) => {
    if (out === undefined) await serve(port);
    else write(out);
  });
}

/** Serves until SIGTERM or SIGINT. */
async function serve(port: number): Promise<void> {
  const { FileServer } = await import('./file-server.ts');
  const server = await FileServer.open(PLAYGROUND, port);
  process.stdout.write(`${server.url}\n`);
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  await server.close();
}

function write(folder: string): void {
  writePlayground(PLAYGROUND, folder);
  process.stdout.write(`${folder}/index.html\n`);
  process.stderr.write('A web server has to serve it: browsers load no modules from files.\n');
}

function port(text: string): number {
  const value = Number(text);
  if (/^\d{1,5}$/.test(text) && value <= 65_535) return value;
  throw new InvalidArgumentError('expected a number from 0 to 65535.');
}
