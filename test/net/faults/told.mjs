/** Processes in a lab that take messages. */
import { once } from 'node:events';

/** Starts a script of Node in a namespace. The function that it resolves to sends a message, and resolves to the answer. */
export async function told(lab, where, ...words) {
  const child = lab.start(where, [process.execPath, ...words], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  await once(child, 'message');
  const waiting = new Map();
  let last = 0;
  child.on('message', ([id, answer]) => {
    waiting.get(id)?.(answer);
    waiting.delete(id);
  });
  child.unref();
  child.channel?.unref();
  return (name, options = {}) =>
    new Promise((resolve) => {
      child.channel?.ref();
      waiting.set(++last, resolve);
      child.send([last, name, options]);
    });
}
