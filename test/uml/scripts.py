#!/usr/bin/env python3
"""Writes packet scripts for a GRE tunnel, with scapy: python3 test/uml/scripts.py (Debian: python3-scapy).

A script is a tunnel device, in the words of ip-tunnel(8), and packets for it in their order. `output` is what Linux makes of each: of those that come
from the underlay (inbound) the packets that leave the tunnel device, of those that the tunnel device is given (outbound) the packets on the underlay. `answer` is what goes
back to the container that sent it. Identifications that Linux chooses are 0 here.
The VM is 192.168.16.32, the remote one 192.168.16.33; `item` is what of test/conformance/items.json a script is about.
"""
import json, pathlib
from scapy.all import GRE, ICMP, IP, Raw, checksum

LOCAL, REMOTE = '192.168.16.32', '192.168.16.33'
OURS, THEIRS = '10.16.32.91', '10.16.33.7'
KEY = 0xdecafbad
EF, AF11 = 0xb8, 0x28
ECN = ['Not-ECT', 'ECT(1)', 'ECT(0)', 'CE']
NOT_ECT, ECT1, ECT0, CE = range(4)
scripts = []


def script(name, item, direction, device, packets):
    scripts.append({'name': name, 'item': item, 'direction': direction, 'device': device, 'packets': packets})


def packet(name, input, output=[], answer=[]):
    words = lambda packets: [bytes(p).hex() for p in packets]
    return {'name': name, 'input': bytes(input).hex(), 'output': words(output), **({'answer': words(answer)} if answer else {})}


def echo(src, dst, size=84, **ip):
    """An echo request of `size` bytes."""
    header = IP(src=src, dst=dst, **{'id': 0x1234, 'ttl': 63, **ip})
    payload = size - len(header) - 8
    return IP(bytes(header / ICMP(id=7, seq=1) / Raw(bytes(i & 255 for i in range(payload)))))


def gre(payload, c=False, k=False, s=False, key=KEY, seq=0, **ip):
    fields = {'chksum_present': int(c), 'key_present': int(k), 'seqnum_present': int(s)}
    return IP(proto=47, **ip) / GRE(proto=0x800, **fields, **({'key': key} if k else {}), **({'sequence_number': seq} if s else {})) / payload


def received(payload, tos=0, **options):
    return gre(payload, src=REMOTE, dst=LOCAL, ttl=64, tos=tos, **options)


def sent(payload, tos=0, ttl=64, flags='DF', **options):
    return gre(payload, src=LOCAL, dst=REMOTE, id=0, tos=tos, ttl=ttl, flags=flags, **options)


q = echo(THEIRS, OURS)
p = echo(OURS, THEIRS)

# Linux takes seven bits for the version (net/ipv4/gre_demux.c), and looks at no other flag than those of options and routing.
plain = bytes(received(q))
flag = lambda bit: plain[:20] + (0x8000 >> bit).to_bytes(2, 'big') + plain[22:]
script('one bit of flags and version', 'G3', 'inbound', {},
       [packet(f'bit {bit}', flag(bit), [q] if bit in (4, 5, 6, 7, 8) else []) for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)])

# All combinations of what the device wants and what the packet has.
for key in (None, KEY):
    for icsum, iseq in ((0, 0), (1, 0), (0, 1), (1, 1)):
        device = {**({} if key is None else {'key': key}), **({'icsum': True} if icsum else {}), **({'iseq': True} if iseq else {})}
        packets = []
        for n in range(8):
            c, k, s = n >> 2 & 1, n >> 1 & 1, n & 1
            taken = c == icsum and k == (key is not None) and s >= iseq
            name = ''.join(letter for letter, bit in zip('CKS', (c, k, s)) if bit) or 'none'
            packets.append(packet(name, received(q, c=c, k=k, s=s, seq=n), [q] if taken else []))
        if icsum:
            wrong = bytearray(bytes(received(q, c=True, k=key is not None, s=iseq, seq=9)))
            wrong[-1] ^= 1
            packets.append(packet('a wrong checksum', wrong))
        words = [word for word in ('key', 'icsum', 'iseq') if word in device]
        script('options, device with ' + (', '.join(words) or 'none'), 'G6', 'inbound', device, packets)


def numbers(name, steps):
    script(name, 'G8', 'inbound', {'iseq': True},
           [packet(says, received(q, s=True, seq=n), [q] if taken else []) for says, n, taken in steps])


numbers('sequence, from 0', [
    ('the first is 0', 0, True), ('in order', 1, True), ('in order again', 2, True), ('repeated', 2, False), ('lower', 1, False),
    ('0 again', 0, False), ('a gap', 7, True), ('from the gap', 5, False), ('behind the gap', 8, True),
    ('2^31 ahead', 9 + 2**31, False), ('2^31 - 1 ahead', 9 + 2**31 - 1, True),
])
numbers('sequence, the first is any', [('the first is 1000', 1000, True), ('lower', 999, False), ('in order', 1001, True)])
numbers('sequence, wrap', [
    ('the first is 2^31 + 5', 2**31 + 5, True), ('2^32 - 2', 2**32 - 2, True), ('repeated', 2**32 - 2, False), ('0 behind 2^32 - 2', 0, True),
    ('2^32 - 1 after 0', 2**32 - 1, False), ('1', 1, True),
])
numbers('sequence, wrap through 2^32 - 1', [
    ('the first is 2^32 - 1', 2**32 - 1, True), ('repeated', 2**32 - 1, True), ('half of all away', 2**31 - 1, True), ('lower than that', 2**31 - 2, False),
])
script('sequence, a number is missing', 'G8', 'inbound', {'iseq': True}, [packet('no S', received(q)), packet('S', received(q, s=True), [q])])

# RFC 6040, figure 4; None is a drop. The columns are the outer Not-ECT, ECT(1), ECT(0), CE.
BECOMES = {
    NOT_ECT: [NOT_ECT, NOT_ECT, NOT_ECT, None], ECT1: [ECT1, ECT1, ECT1, CE], ECT0: [ECT0, ECT1, ECT0, CE], CE: [CE, CE, CE, CE],
}
script('ECN, decapsulation', 'E2', 'inbound', {}, [
    packet(f'inner {ECN[i]}, outer {ECN[o]}', received(echo(THEIRS, OURS, tos=EF | i), tos=AF11 | o),
           [] if BECOMES[i][o] is None else [echo(THEIRS, OURS, tos=EF | BECOMES[i][o])])
    for i in range(4) for o in range(4)
])

# Linux has the ECN field of RFC 3168's full functionality: CE becomes ECT(0).
marked = lambda ecn: ECT0 if ecn == CE else ecn
for name, device, dscp in (('TOS 0', {}, 0), ('TOS inherit', {'tos': 'inherit'}, EF), ('TOS fixed', {'tos': AF11}, AF11)):
    script(f'ECN, encapsulation, {name}', 'E1' if dscp == 0 else 'E3', 'outbound', device, [
        packet(f'inner {ECN[e]}', echo(OURS, THEIRS, tos=EF | e), [sent(echo(OURS, THEIRS, tos=EF | e), tos=dscp | marked(e))]) for e in range(4)
    ])
ttls = (1, 2, 63, 200, 254)
for ttl in (64, 'inherit', 7):
    script(f'TTL {ttl}', 'O1', 'outbound', {'ttl': ttl}, [
        packet(f'inner {n}', echo(OURS, THEIRS, ttl=n), [sent(echo(OURS, THEIRS, ttl=n), ttl=n if ttl == 'inherit' else ttl)]) for n in ttls
    ])
free = lambda flags: echo(OURS, THEIRS, flags=flags)
script('DF, path MTU discovery', 'M4', 'outbound', {}, [packet(f'inner DF {int(f == "DF")}', free(f), [sent(free(f))]) for f in ('', 'DF')])
script('DF, none', 'M4', 'outbound', {'ttl': 'inherit', 'pmtudisc': False},
       [packet(f'inner DF {int(f == "DF")}', free(f), [sent(free(f), ttl=63, flags=f)]) for f in ('', 'DF')])
odd = echo(OURS, THEIRS, 85)
for device in ({'key': KEY}, {'ocsum': True}, {'oseq': True}, {'key': KEY, 'ocsum': True, 'oseq': True}):
    options = lambda n: {'k': 'key' in device, 'c': 'ocsum' in device, 's': 'oseq' in device, 'seq': n}
    script('sent with ' + ', '.join(device), 'G8' if 'oseq' in device else 'G1', 'outbound', device, [
        packet(f'{name}', inner, [sent(inner, **options(n))]) for n, (name, inner) in enumerate((('the first', p), ('the second, odd', odd), ('the third', p)))
    ])


def too_big(inner, mtu):
    """Linux quotes the packet as it came, before the TTL is less by one."""
    quote = inner.copy()
    quote.ttl, quote.chksum = inner.ttl + 1, None
    tos = 0xc0 | inner.tos & 0x1e
    return IP(src=LOCAL, dst=OURS, id=0, tos=tos) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(quote)[:548])


large = lambda size, **ip: echo(OURS, THEIRS, size, flags='DF', **ip)
for device in ({}, {'key': KEY}, {'key': KEY, 'ocsum': True}, {'key': KEY, 'ocsum': True, 'oseq': True}):
    mtu = 1476 - 4 * len(device)
    fits = sent(large(mtu), k='key' in device, c='ocsum' in device, s='oseq' in device)
    script(f'too large with DF, overhead {1500 - mtu}', 'M2', 'outbound', device, [
        packet('just fits', large(mtu), [fits]),
        packet('one byte too long', large(mtu + 1), answer=[too_big(large(mtu + 1), mtu)]),
        packet('1500 bytes', large(1500), answer=[too_big(large(1500), mtu)]),
        packet('with all of the TOS', large(1500, tos=0xff), answer=[too_big(large(1500, tos=0xff), mtu)]),
    ])
error = IP(src=OURS, dst=THEIRS, flags='DF', ttl=63, id=5) / ICMP(type=3, code=1) / Raw(bytes(1472))
later = IP(src=OURS, dst=THEIRS, flags='DF', ttl=63, id=5, frag=10) / Raw(bytes(1480))
first = IP(src=OURS, dst=THEIRS, flags='DF+MF', ttl=63, id=5) / Raw(bytes(1480))
script('too large with DF, what is not answered', 'I1', 'outbound', {}, [
    packet('an ICMP error', error), packet('a fragment other than the first', later),
    packet('the first fragment', IP(bytes(first)), answer=[too_big(IP(bytes(first)), 1476)]),
])


def optioned(header, options, data):
    """A packet whose options scapy would write in its own way."""
    header.ihl, header.len, header.chksum = 5 + len(options) // 4, 20 + len(options) + len(data), 0
    words = bytearray(bytes(header) + options)
    words[10:12] = checksum(bytes(words)).to_bytes(2, 'big')
    return IP(bytes(words) + data)


def cut(inner, mtu):
    """Linux fills options that are not for every fragment with no-operations."""
    inner = IP(bytes(inner))
    if inner.len <= mtu:
        return [inner]
    header, data = inner.ihl * 4, bytes(inner)[inner.ihl * 4:]
    size = (mtu - header) // 8 * 8
    made = []
    for at in range(0, len(data), size):
        options = bytes(inner)[20:header] if at == 0 else COPIED if header > 20 else b''
        more = 'MF' if at + size < len(data) or 'MF' in inner.flags else ''
        piece = IP(src=inner.src, dst=inner.dst, id=inner.id, ttl=inner.ttl, tos=inner.tos, proto=inner.proto, frag=inner.frag + at // 8, flags=more)
        made.append(optioned(piece, options, data[at:at + size]))
    return made


# Two options for experiments (RFC 4727): 0x9e is copied into every fragment, 0x1e is not.
OPTIONS, COPIED = b'\x1e\x04ab\x9e\x04cd', b'\x01\x01\x01\x01\x9e\x04cd'
with_options = optioned(IP(src=OURS, dst=THEIRS, id=9, ttl=63, proto=253), OPTIONS, bytes(i & 255 for i in range(1472)))
for device in ({}, {'key': KEY, 'ocsum': True, 'oseq': True}):
    mtu = 1476 - 4 * len(device)
    number = iter(range(99))
    fragments = lambda inner: [sent(f, k='key' in device, c='ocsum' in device, s='oseq' in device, seq=next(number)) for f in cut(inner, mtu)]
    plain, middle = echo(OURS, THEIRS, 1500, tos=EF), IP(src=OURS, dst=THEIRS, id=6, ttl=63, flags='MF', frag=100) / Raw(bytes(1480))
    last = IP(src=OURS, dst=THEIRS, id=6, ttl=63, frag=285) / Raw(bytes(1463))
    packets = [('just fits', echo(OURS, THEIRS, mtu)), ('one byte too long', echo(OURS, THEIRS, mtu + 1)), ('1500 bytes', plain),
               ('a fragment in the middle', middle), ('the last fragment', last), ('with options', with_options)]
    script(f'too large without DF, overhead {1500 - mtu}', 'M3', 'outbound', device, [packet(name, inner, fragments(inner)) for name, inner in packets])

(pathlib.Path(__file__).parent / 'scripts.json').write_text(json.dumps(scripts, indent=1) + '\n')
