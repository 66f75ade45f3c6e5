"""Decodes netlink messages by pyroute2: standard input has a line `KIND HEX` for each, standard output gets each as a line of JSON."""
import json
import sys

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

KINDS = {
    "link": ifinfmsg,
    "address": ifaddrmsg,
    "route": rtmsg,
    "neighbour": ndmsg,
    "neighbourTable": ndtmsg,
    "bpfFilter": tcmsg,
}


def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    attributes = {name: plain(inside) for name, inside in value.get("attrs", [])}
    rest = {name: plain(inside) for name, inside in value.items() if name not in ("attrs", "header", "event", "value")}
    return {**rest, **attributes}


for line in sys.stdin:
    kind, data = line.split()
    message = KINDS[kind](bytes.fromhex(data))
    message.decode()
    print(json.dumps(plain(message)))
