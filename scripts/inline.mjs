/**
 * A transform of asc: the functions below are always inlined. What is called for every packet costs more to call than to do, and the optimizer leaves out what
 * has several callers. `@inline` in the sources would say the same, but no decorator of a function is TypeScript. `npm run bench` shows what each is worth; each
 * makes the module larger.
 */
import { Node } from 'assemblyscript';
import { Transform } from 'assemblyscript/transform';

const FUNCTIONS = new Set(['beginPacket', 'headerSum', 'limitOf', 'openFor', 'putIpv4']);

export default class Inline extends Transform {
  afterParse(parser) {
    const left = new Set(FUNCTIONS);
    for (const { statements } of parser.sources.filter(({ normalizedPath }) =>
      normalizedPath.startsWith('assembly/'),
    )) {
      for (const statement of statements) {
        if (!left.delete(statement.name?.text)) continue;
        const name = Node.createIdentifierExpression('inline', statement.range);
        statement.decorators = [...(statement.decorators ?? []), Node.createDecorator(name, null, statement.range)];
      }
    }
    if (left.size > 0) throw new Error(`no such function: ${[...left].join(', ')}`);
  }
}
