/** The core as a project uses it that has the package installed; `lengths` are the bytes of each message, as text: 44. */
export const FIVE_LINES = `import { createCore, ipv4, mapping } from 'inlay/core';
const core = await createCore();
core.configure({ local: ipv4('192.168.16.32'), mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')] });
core.put(0, Uint8Array.from([69, 0, 0, 20, 0, 0, 0, 0, 64, 1, 37, 104, 10, 16, 32, 91, 10, 16, 33, 7]));
core.encapsulate(0, 1, performance.now());
const lengths = core.messages.all().map((message) => core.messages.bytes(message).length).join();
`;
