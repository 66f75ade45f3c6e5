/** The page of test/hosts/browser.mjs: runs one mode after the other, as the programs of examples/ do. */
import { run } from '../../examples/javascript/program.js';

for (;;) {
  const words = await (await fetch('/next')).json();
  // Files are asked for by the number of the word that names them.
  const numbered = (file) => `/word/${words.lastIndexOf(file)}`;
  const files = {
    read: async (file) => new Uint8Array(await (await fetch(numbered(file))).arrayBuffer()),
    write: (file, body) => fetch(numbered(file), { method: 'POST', body }),
  };
  const result = await run(words, files).then(
    (stdout) => ({ code: 0, stdout, stderr: '' }),
    (error) => ({ code: 1, stdout: '', stderr: error.message }),
  );
  await fetch('/result', { method: 'POST', body: JSON.stringify(result) });
}
