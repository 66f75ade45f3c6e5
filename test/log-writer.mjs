/** A process that logs: as many lines as it is told on stdin, and it says when it has done so. */
import { createLog } from '../dist/log.js';

const log = createLog('info');
let next = 0;
process.stdin.setEncoding('utf8').on('data', (count) => {
  for (let i = 0; i < Number(count); i++) log.info({ i: next++, by: process.pid }, 'x'.repeat(200));
  process.stdout.write('logged\n');
});
