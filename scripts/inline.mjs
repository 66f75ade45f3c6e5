/**
 * A transform of asc: functions whose comment ends with "Inlined wherever it is called." are. What is called for every packet costs more to call than to do, and the
 * optimizer leaves out what has several callers. `@inline` would say the same, but no decorator of a function is TypeScript. Each makes the module larger:
 * `npm run bench` shows what it is worth.
 */
import { Node } from 'assemblyscript';
import { Transform } from 'assemblyscript/transform';

const MARK = /Inlined wherever it is called\.\s*\*\/\s*(export\s+)?$/;

export default class Inline extends Transform {
  afterParse(parser) {
    for (const { statements, text } of parser.sources) {
      for (const statement of statements) {
        const { name, range } = statement;
        if (!name || !MARK.test(text.slice(0, range.start))) continue;
        const inline = Node.createDecorator(Node.createIdentifierExpression('inline', range), null, range);
        statement.decorators = [...(statement.decorators ?? []), inline];
      }
    }
  }
}
