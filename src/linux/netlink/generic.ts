/**
 * Generic netlink (<linux/genetlink.h>), and the family fou: UDP ports whose payload is another protocol
 * (<linux/fou.h>, ip-fou(8)).
 */
import { be16, message, struct, text, u8, u16 } from './codec.ts';

// <linux/genetlink.h>
export const GENL_ID_CTRL = 0x10;
export const CTRL_CMD_GETFAMILY = 3;
// <linux/fou.h>
export const FOU_CMD_ADD = 1;
export const FOU_CMD_DEL = 2;
export const FOU_CMD_GET = 3;
export const FOU_ENCAP_DIRECT = 1;

const genlmsghdr = struct(4, { command: [0, u8], version: [1, u8] });

export const family = message(genlmsghdr, { id: [1, u16], name: [2, text] });

export const fou = message(genlmsghdr, { port: [1, be16], family: [2, u8], protocol: [3, u8], type: [4, u8] });
