/** A process of the bench does what its parent asks for, by name. */

/** `commands` are functions by their names, with one argument each. */
export function obey(commands) {
  process.on('message', async ([number, name, options]) => {
    try {
      process.send([number, { result: await commands[name](options) }]);
    } catch (error) {
      process.send([number, { error: error.stack }]);
    }
  });
  process.on('disconnect', () => process.exit());
  process.send('ready');
}
