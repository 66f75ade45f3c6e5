/** xdp.mjs INDEX: puts an XDP program that passes everything at the device with this interface index, where it stays; xdp.mjs INDEX off takes it away. */
import { exit, set } from '../../dist/linux/bpf/assembler.js';
import { loadProgram } from '../../dist/linux/bpf/program.js';
import { attributes, message, s32, struct, u16 } from '../../dist/linux/netlink/codec.js';
import { RTM_NEWLINK } from '../../dist/linux/netlink/link.js';
import { request } from '../../dist/linux/netlink/message.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';

// <linux/bpf.h>, <linux/if_link.h>
const BPF_PROG_TYPE_XDP = 6;
const XDP_PASS = 2;
const codec = message(struct(16, { type: [2, u16], index: [4, s32] }), { xdp: [43, attributes({ fd: [1, s32] })] });

const [index, word] = process.argv.slice(2);
const fd = word === 'off' ? -1 : loadProgram([set(0, XDP_PASS), exit], 'that passes all', BPF_PROG_TYPE_XDP);
const netlink = Netlink.open();
netlink.do(request(RTM_NEWLINK, 0, 'XDP program', codec, { index: Number(index), xdp: { fd } }));
netlink.close();
