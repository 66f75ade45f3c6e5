#!/usr/bin/env python3
"""Writes the golden vectors with scapy, an implementation that is not ours: python3 test/vectors/make.py (Debian: python3-scapy).

A vector is input bytes, a direction and the verdict; forwarded packets also have output bytes and the peer (the remote VM). A packet that is fragmented
has outputs instead, and where the container is answered, there is a reply. With `refused`, the host cannot write the outputs and says so with this ICMP code.
`merged` is what the host says of merging, 0 where it is not there.
`item` is what of test/conformance/items.json it shows.
The VM is 192.168.16.32, the mesh 10.0.0.0/8 over 192.168.0.0/16 unless the file's config says otherwise.
"""
import json, pathlib
from scapy.all import GRE, ICMP, IP, TCP, UDP, Raw

HERE = pathlib.Path(__file__).parent
LOCAL, REMOTE = '192.168.16.32', '192.168.16.33'
OURS, THEIRS = '10.16.32.91', '10.16.33.7'
CONFIG = {'local': LOCAL, 'mappings': [{'overlay': '10.0.0.0/8', 'underlay': '192.168.0.0/16'}]}
CLASS_E = {'local': LOCAL, 'mappings': [{'overlay': '240.0.0.0/4', 'underlay': '192.168.0.0/17'}]}
BOTH = {'local': LOCAL, 'mappings': CONFIG['mappings'] + [{'overlay': '240.0.0.0/4', 'underlay': '192.168.0.0/16'}]}


def ping(src=OURS, dst=THEIRS, size=56, **ip):
    return IP(src=src, dst=dst, id=0x1234, **ip) / ICMP(id=7, seq=1) / Raw(bytes(i & 255 for i in range(size)))


def outer(payload, key=None, src=LOCAL, dst=REMOTE, ip={}, **options):
    gre = GRE(proto=0x800, **options) if key is None else GRE(proto=0x800, key_present=1, key=key, **options)
    return IP(**{'src': src, 'dst': dst, 'id': 0, 'flags': 'DF', 'ttl': 64, 'proto': 47, **ip}) / gre / payload


def reply(packet, code, mtu=0, src='10.16.32.1'):
    """What the container is told (RFC 792, RFC 1191): at most 576 bytes (RFC 1812 4.3.2.3), precedence 6 (4.3.2.5)."""
    quote = bytes(packet)
    to = IP(quote).src
    return IP(src=src, dst=to, id=0, flags='DF', tos=0xc0, ttl=64) / ICMP(type=3, code=code, nexthopmtu=mtu) / Raw(quote[:576 - 28])


def gre_in(payload, src=REMOTE, dst=LOCAL, ip={}, **gre):
    return IP(src=src, dst=dst, ttl=64, proto=47, **ip) / GRE(**{'proto': 0x800, **gre}) / payload


def edit(packet, at, value):
    b = bytearray(bytes(packet))
    b[at:at + len(value)] = value
    return bytes(b)


def fix_checksum(packet, header=20):
    b = bytearray(packet)
    b[10:12] = b'\0\0'
    s = sum(int.from_bytes(b[i:i + 2], 'big') for i in range(0, header, 2))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    b[10:12] = (~s & 0xffff).to_bytes(2, 'big')
    return bytes(b)


def vector(name, source, direction, packet, verdict='forward', item=None, output=None, outputs=None, peer=None, answer=None, refused=None, merged=None):
    v = {'name': name, **({} if item is None else {'item': item}), 'source': source, 'direction': direction, 'input': bytes(packet).hex(), 'verdict': verdict}
    if merged is not None:
        v['merged'] = merged
    if output is not None:
        v['output'], v['peer'] = bytes(output).hex(), peer
    if outputs is not None:
        v['outputs'], v['peer'] = [bytes(o).hex() for o in outputs], peer
    if refused is not None:
        v['refused'] = refused
    if answer is not None:
        v['reply'] = bytes(answer).hex()
    return v


def outbound(name, source, packet, verdict='forward', **kw):
    return vector(name, source, 'outbound', packet, verdict, **kw)


def inbound(name, source, packet, verdict='forward', **kw):
    return vector(name, source, 'inbound', packet, verdict, **kw)


def write(file, config, vectors):
    text = json.dumps({'config': config, 'vectors': vectors}, indent=1)
    (HERE / f'{file}.json').write_text(text + '\n')


p = ping()
tcp = IP(src=OURS, dst=THEIRS, id=1) / TCP(sport=40000, dport=80, flags='PA', seq=1, ack=1) / Raw(b'x' * 1001)
options = IP(src=OURS, dst=THEIRS, id=2, options=[b'\x94\x04\x00\x00']) / UDP(sport=1, dport=2) / Raw(b'abc')
fragment = IP(src=OURS, dst=THEIRS, id=3, frag=185, flags='MF') / Raw(b'f' * 64)
write('outbound', CONFIG, [
    outbound('echo request', 'RFC 2784 2', p, item='G1, O1', output=outer(p), peer=REMOTE),
    outbound('tcp, odd length', 'RFC 2784 2', tcp, item='G1', output=outer(tcp), peer=REMOTE),
    outbound('ip options', 'RFC 791 3.1', options, item='G1', output=outer(options), peer=REMOTE),
    outbound('fragment other than the first passes', 'RFC 7588 3', fragment, item='M5', output=outer(fragment), peer=REMOTE),
    outbound('header only', 'RFC 791 3.1', IP(src=OURS, dst=THEIRS, proto=59), item='R1', output=outer(IP(src=OURS, dst=THEIRS, proto=59)), peer=REMOTE),
    outbound('bytes behind the total length do not travel', 'RFC 791 3.1', bytes(p) + b'\xff' * 9, item='R1', output=outer(p), peer=REMOTE),
    outbound('to a VM itself', 'index 1', ping(dst='10.16.33.1'), output=outer(ping(dst='10.16.33.1')), peer=REMOTE),
    outbound('from the VM itself', 'index 1', ping(src='10.16.32.1'), output=outer(ping(src='10.16.32.1')), peer=REMOTE),
    outbound('empty', 'robustness', b'', 'truncated', item='R1'),
    outbound('19 bytes', 'RFC 791 3.1', bytes(p)[:19], 'truncated', item='R1'),
    outbound('shorter than its total length', 'RFC 791 3.1', bytes(p)[:-1], 'truncated', item='R1'),
    outbound('ipv6', 'RFC 8200 3', edit(p, 0, b'\x65'), 'not-ipv4', item='R1'),
    outbound('header length 16', 'RFC 791 3.1', edit(p, 0, b'\x44'), 'bad-header-length', item='R1'),
    outbound('total length below header length', 'RFC 791 3.1', fix_checksum(edit(p, 2, b'\x00\x13')), 'bad-total-length', item='R1'),
    outbound('total length zero', 'RFC 791 3.1', fix_checksum(edit(p, 2, b'\x00\x00')), 'bad-total-length', item='R1'),
    outbound('header checksum', 'RFC 1812 5.2.2', edit(p, 10, b'\xde\xad'), 'bad-header-checksum', item='R1'),
    outbound("another VM's source", 'RFC 5969 12', ping(src='10.16.31.91'), 'foreign-source', item='S5'),
    outbound('underlay source', 'RFC 5969 12', ping(src=LOCAL), 'foreign-source', item='S5'),
    outbound('our slice itself as source', 'index 0', ping(src='10.16.32.0'), 'foreign-source', item='S5'),
    outbound('our all-ones address as source', 'index all ones', ping(src='10.16.32.255'), 'foreign-source', item='S5'),
    outbound('loopback source', 'RFC 1122 3.2.1.3', ping(src='127.0.0.1'), 'foreign-source', item='S5, S7'),
    outbound('destination outside the overlay', 'RFC 5969 8', ping(dst='172.16.0.1'), 'no-mapping', answer=reply(ping(dst='172.16.0.1'), 1)),
    outbound('multicast destination', 'RFC 1122 3.2.1.3', ping(dst='224.0.0.1'), 'no-mapping', item='S7'),
    outbound('limited broadcast', 'RFC 1122 3.2.1.3', ping(dst='255.255.255.255'), 'no-mapping', item='S7'),
    outbound('our own slice', 'no loops', ping(dst='10.16.32.92'), 'own-slice', answer=reply(ping(dst='10.16.32.92'), 1), item='G9'),
    outbound('a slice itself', 'index 0', ping(dst='10.16.33.0'), 'reserved-address', answer=reply(ping(dst='10.16.33.0'), 1)),
    outbound("the underlay's network address", 'RFC 1122 3.2.1.3', ping(dst='10.0.0.7'), 'reserved-address', item='S7', answer=reply(ping(dst='10.0.0.7'), 1)),
    outbound("the underlay's broadcast address", 'RFC 1122 3.2.1.3', ping(dst='10.255.255.7'), 'reserved-address', item='S7', answer=reply(ping(dst='10.255.255.7'), 1)),
    outbound('all-ones address', 'index all ones', ping(dst='10.16.33.255'), 'reserved-address', answer=reply(ping(dst='10.16.33.255'), 1)),
])

q = ping(THEIRS, OURS)
g = gre_in(q)
write('inbound', CONFIG, [
    inbound('echo request', 'RFC 2784 2', g, item='G6', output=q, peer=REMOTE),
    inbound('checksum present', 'RFC 2784 2.5', gre_in(q, chksum_present=1), item='G4, G6', output=q, peer=REMOTE),
    inbound('checksum present, odd length', 'RFC 2784 2.5', gre_in(ping(THEIRS, OURS, 55), chksum_present=1), item='G4', output=ping(THEIRS, OURS, 55), peer=REMOTE),
    inbound('sequence number present', 'RFC 2890 2.2', gre_in(q, seqnum_present=1, sequence_number=5), item='G6', output=q, peer=REMOTE),
    inbound('checksum and sequence number', 'RFC 2890 2', gre_in(q, chksum_present=1, seqnum_present=1, sequence_number=5), item='G4, G6', output=q, peer=REMOTE),
    inbound('reserved bits 6 to 12 are ignored', 'RFC 2784 2.3', edit(g, 20, b'\x03\xf8'), item='G3', output=q, peer=REMOTE),
    inbound('outer ip options', 'RFC 791 3.1', gre_in(q, ip={'options': [b'\x94\x04\x00\x00']}), output=q, peer=REMOTE),
    inbound('bytes behind the outer total length', 'RFC 791 3.1', bytes(g) + b'\xff' * 9, item='R1', output=q, peer=REMOTE),
    inbound('bytes behind the inner total length', 'RFC 791 3.1', gre_in(bytes(q) + b'\xff' * 9), item='R1', output=q, peer=REMOTE),
    inbound('to the VM itself', 'index 1', gre_in(ping(THEIRS, '10.16.32.1')), output=ping(THEIRS, '10.16.32.1'), peer=REMOTE),
    inbound('empty', 'robustness', b'', 'truncated', item='R1'),
    inbound('no room for GRE', 'RFC 2784 2', IP(src=REMOTE, dst=LOCAL, proto=47) / Raw(b'\0\0\x08'), 'truncated', item='G6, R1'),
    inbound('no room for the key', 'RFC 2890 2', IP(src=REMOTE, dst=LOCAL, proto=47) / Raw(b'\x20\0\x08\0\0\0\0'), 'truncated', item='G6, R1'),
    inbound('no inner packet', 'RFC 2784 2', IP(src=REMOTE, dst=LOCAL, proto=47) / Raw(b'\0\0\x08\0'), 'truncated', item='R1'),
    inbound('inner packet cut off', 'RFC 791 3.1', gre_in(bytes(q)[:-1]), 'truncated', item='R1'),
    inbound('outer checksum', 'RFC 1122 3.2.1.2', edit(g, 10, b'\xde\xad'), 'bad-header-checksum', item='R1'),
    inbound('another protocol', 'RFC 2784 3', IP(src=REMOTE, dst=LOCAL, proto=4) / q, 'not-gre'),
    inbound('outer fragment, first', 'RFC 791 3.2', gre_in(q, ip={'flags': 'MF'}), 'fragment'),
    inbound('outer fragment, later', 'RFC 791 3.2', gre_in(q, ip={'frag': 9}), 'fragment'),
    inbound("another VM's packet", 'scope', gre_in(q, dst='192.168.16.40'), 'not-for-us'),
    inbound('outer source outside the underlay', 'CVE-2020-10136', gre_in(q, src='172.16.16.33'), 'foreign-underlay', item='S4'),
    inbound('outer source is ourselves', 'CVE-2024-7595', gre_in(q, src=LOCAL), 'foreign-underlay', item='S4'),
    inbound("outer source is the underlay's network address", 'RFC 1122 3.2.1.3', gre_in(ping('10.0.0.7', OURS), src='192.168.0.0'), 'foreign-underlay', item='S4, S7'),
    inbound("outer source is the underlay's broadcast address", 'RFC 1122 3.2.1.3', gre_in(ping('10.255.255.7', OURS), src='192.168.255.255'), 'foreign-underlay', item='S4, S7'),
    inbound('inner source of the broadcast address', 'RFC 1122 3.2.1.3', gre_in(ping('10.255.255.7', OURS)), 'spoofed-source', item='S7'),
    inbound('outer source 0.0.0.0', 'RFC 1122 3.2.1.3', gre_in(q, src='0.0.0.0'), 'foreign-underlay', item='S4'),
    inbound('version 1', 'RFC 2784 2.4', gre_in(q, version=1), 'gre-version', item='G2'),
    inbound('version 7', 'RFC 2784 2.4', gre_in(q, version=7), 'gre-version', item='G2'),
    inbound('routing present', 'RFC 2784 2.3', gre_in(q, routing_present=1), 'gre-flags', item='G3'),
    inbound('strict source route', 'RFC 2784 2.3', edit(g, 20, b'\x08'), 'gre-flags', item='G3'),
    inbound('bit 5', 'RFC 2784 2.3', edit(g, 20, b'\x04'), 'gre-flags', item='G3'),
    inbound('checksum wrong', 'RFC 2784 2.5', edit(gre_in(q, chksum_present=1), 24, b'\xde\xad'), 'gre-checksum', item='G4'),
    inbound('ipv6 inside', 'RFC 2784 2.4', gre_in(q, proto=0x86DD), 'gre-protocol', item='G5'),
    inbound('arp inside', 'RFC 2784 2.4', gre_in(q, proto=0x0806), 'gre-protocol', item='G5'),
    inbound('unexpected key', 'RFC 2890 2.1', gre_in(q, key_present=1, key=7), 'gre-key', item='G7'),
    inbound('inner is ipv6', 'RFC 8200 3', gre_in(edit(q, 0, b'\x65')), 'not-ipv4', item='R1'),
    inbound('inner header length', 'RFC 791 3.1', gre_in(edit(q, 0, b'\x44')), 'bad-header-length', item='R1'),
    inbound('inner total length', 'RFC 791 3.1', gre_in(fix_checksum(edit(q, 2, b'\x00\x13'))), 'bad-total-length', item='R1'),
    inbound('inner checksum', 'RFC 1812 5.2.2', gre_in(edit(q, 10, b'\xde\xad')), 'bad-header-checksum', item='R1'),
    inbound('inner source of a third VM', 'RFC 5969 12', gre_in(ping('10.16.34.7', OURS)), 'spoofed-source', item='S1'),
    inbound('inner source in our own slice', 'RFC 5969 12', gre_in(ping('10.16.32.92', OURS)), 'spoofed-source', item='S2'),
    inbound('inner source outside the overlay', 'RFC 5969 12', gre_in(ping('8.8.8.8', OURS)), 'spoofed-source', item='S1'),
    inbound('inner source is the slice itself', 'index 0', gre_in(ping('10.16.33.0', OURS)), 'spoofed-source', item='S1'),
    inbound('inner source is all ones', 'index all ones', gre_in(ping('10.16.33.255', OURS)), 'spoofed-source', item='S1'),
    inbound('inner source is an underlay address', 'CVE-2024-7596', gre_in(ping(REMOTE, OURS)), 'spoofed-source', item='S1'),
    inbound('inner destination on a third VM', 'no transit', gre_in(ping(THEIRS, '10.16.34.7')), 'foreign-destination', item='G9, S3'),
    inbound("inner destination back on the sender's VM", 'CVE-2024-7595', gre_in(ping(THEIRS, '10.16.33.8')), 'foreign-destination', item='G9, S3'),
    inbound('inner destination outside the overlay', 'CVE-2020-10136', gre_in(ping(THEIRS, '8.8.8.8')), 'foreign-destination', item='S3'),
    inbound('inner destination is an underlay address', 'CVE-2020-10136', gre_in(ping(THEIRS, LOCAL)), 'foreign-destination', item='S3'),
    inbound('inner multicast', 'RFC 1122 3.2.1.3', gre_in(ping(THEIRS, '224.0.0.5')), 'foreign-destination', item='S3, S7'),
    inbound('our slice itself', 'index 0', gre_in(ping(THEIRS, '10.16.32.0')), 'reserved-address', item='S7'),
    inbound('our all-ones address', 'index all ones', gre_in(ping(THEIRS, '10.16.32.255')), 'reserved-address', item='S7'),
])

KEY = 0xdecafbad
write('keyed', {**CONFIG, 'key': KEY}, [
    outbound('echo request', 'RFC 2890 2', p, item='G1, G7', output=outer(p, KEY), peer=REMOTE),
    inbound('our key', 'RFC 2890 2.1', gre_in(q, key_present=1, key=KEY), item='G6, G7', output=q, peer=REMOTE),
    inbound('checksum, key and sequence number', 'RFC 2890 2', gre_in(q, chksum_present=1, key_present=1, key=KEY, seqnum_present=1, sequence_number=0), item='G4, G6', output=q, peer=REMOTE),
    inbound('key and sequence number', 'RFC 2890 2', gre_in(q, key_present=1, key=KEY, seqnum_present=1, sequence_number=1), item='G6', output=q, peer=REMOTE),
    inbound('checksum and key', 'RFC 2890 2', gre_in(q, chksum_present=1, key_present=1, key=KEY), item='G4, G6', output=q, peer=REMOTE),
    inbound('another key', 'RFC 2890 2.1', gre_in(q, key_present=1, key=KEY ^ 1), 'gre-key', item='G7'),
    inbound('no key', 'RFC 2890 2.1', gre_in(q), 'gre-key', item='G7'),
])

e = ping('242.4.0.91', '242.4.32.7')
write('class-e', CLASS_E, [
    outbound('echo request', '240.0.0.0/4 over a /17', e, output=outer(e), peer='192.168.16.33'),
    outbound('no such VM bits', 'the last VM, all ones', ping('242.4.0.91', '255.255.255.255'), 'reserved-address'),
    inbound('echo reply', '240.0.0.0/4 over a /17', gre_in(ping('242.4.32.7', '242.4.0.91')), output=ping('242.4.32.7', '242.4.0.91'), peer='192.168.16.33'),
    inbound('sender outside the /17', 'scope', gre_in(ping('242.4.32.7', '242.4.0.91'), src='192.168.200.1'), 'foreign-underlay', item='S4'),
])

x = ping(OURS, '241.2.16.7')
write('several-mappings', BOTH, [
    outbound('from one overlay to the other', 'two mappings, one underlay', x, output=outer(x), peer=REMOTE),
    inbound('from the other overlay', 'two mappings, one underlay', gre_in(ping('241.2.16.7', OURS)), output=ping('241.2.16.7', OURS), peer=REMOTE),
    inbound('spoofed across overlays', 'RFC 5969 12', gre_in(ping('241.2.32.7', OURS)), 'spoofed-source', item='S1'),
])

loopback, this = '127.0.0.1', '0.1.2.3'
nested = IP(src=THEIRS, dst=OURS, proto=47) / GRE(proto=0x800) / ping(THEIRS, OURS)
write('scope', CONFIG, [
    *[inbound(f'inner source {a}', 'RFC 1122 3.2.1.3', gre_in(ping(a, OURS)), 'spoofed-source', item='S7') for a in (this, loopback, '224.0.0.5', '255.255.255.255')],
    *[inbound(f'inner destination {a}', 'RFC 1122 3.2.1.3', gre_in(ping(THEIRS, a)), 'foreign-destination', item='S7') for a in (this, loopback, '239.1.2.3', '255.255.255.255')],
    inbound('a tunnel in the tunnel', 'robustness', gre_in(nested), 'nested-gre', item='R1'),
    outbound('a tunnel in the tunnel', 'robustness', IP(src=OURS, dst=THEIRS, proto=47) / GRE(proto=0x800) / p, 'nested-gre', item='R1'),
    outbound("a container's tunnel to a VM", 'not ours to carry', IP(src=OURS, dst=REMOTE, proto=47) / GRE(proto=0x800) / p, 'no-mapping', item='S6', answer=reply(IP(src=OURS, dst=REMOTE, proto=47) / GRE(proto=0x800) / p, 1)),
    outbound('an ICMP error to nobody', 'RFC 1122 3.2.2', IP(src=OURS, dst='10.16.33.0') / ICMP(type=3, code=1) / p, 'reserved-address', item='I1'),
    outbound('a later fragment to nobody', 'RFC 1122 3.2.2', IP(src=OURS, dst='10.16.33.0', frag=9) / Raw(b'f' * 64), 'reserved-address', item='I1'),
    outbound('a long packet to nobody', 'RFC 1812 4.3.2.3', ping(dst='10.16.33.0', size=1400), 'reserved-address', item='I2, I3', answer=reply(ping(dst='10.16.33.0', size=1400), 1)),
])

# RFC 6040 figure 4: what an inner field becomes when it comes with an outer one; None is dropped.
NOT_ECT, ECT_1, ECT_0, CE = range(4)
NAMES = {NOT_ECT: 'Not-ECT', ECT_1: 'ECT(1)', ECT_0: 'ECT(0)', CE: 'CE'}
ECN = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
DSCP = 46 << 2  # expedited forwarding


def ecn_vectors():
    for inner, row in ECN.items():
        for met, becomes in row.items():
            packet = gre_in(ping(THEIRS, OURS, tos=DSCP | inner), ip={'tos': met})
            kept = {} if becomes is None else {'output': ping(THEIRS, OURS, tos=DSCP | becomes), 'peer': REMOTE}
            yield inbound(f'{NAMES[inner]} in {NAMES[met]}', 'RFC 6040 4.2', packet, 'ecn' if becomes is None else 'forward', item='E2', **kept)


write('ecn', CONFIG, [
    *[outbound(f'{NAMES[e]}', 'RFC 6040 4.1, normal mode', ping(tos=DSCP | e), item='E1', output=outer(ping(tos=DSCP | e), ip={'tos': e}), peer=REMOTE) for e in NAMES],
    *ecn_vectors(),
])
write('ecn-compatibility', {**CONFIG, 'ecn': 'compatibility'}, [
    outbound(f'{NAMES[e]}', 'RFC 6040 4.1, compatibility mode', ping(tos=DSCP | e), item='E1', output=outer(ping(tos=DSCP | e)), peer=REMOTE) for e in NAMES
])
write('dscp-pipe', {**CONFIG, 'dscp': 10, 'ttl': 17}, [
    outbound('configured, whatever the inner one is', 'RFC 2983 3.1', ping(tos=DSCP | CE), item='E3, O1', output=outer(ping(tos=DSCP | CE), ip={'tos': 10 << 2 | CE, 'ttl': 17}), peer=REMOTE),
    inbound('the inner one stays', 'RFC 2983 3.1', gre_in(ping(THEIRS, OURS, tos=DSCP), ip={'tos': 8 << 2}), item='E3', output=ping(THEIRS, OURS, tos=DSCP), peer=REMOTE),
])
write('dscp-uniform', {**CONFIG, 'dscp': 'uniform', 'ttl': 'inherit'}, [
    outbound('copied', 'RFC 2983 3.1', ping(tos=DSCP | ECT_0, ttl=9), item='E3, O1', output=outer(ping(tos=DSCP | ECT_0, ttl=9), ip={'tos': DSCP | ECT_0, 'ttl': 9}), peer=REMOTE),
    inbound('and back', 'RFC 2983 3.1', gre_in(ping(THEIRS, OURS, tos=DSCP | ECT_0), ip={'tos': 8 << 2 | CE}), item='E3', output=ping(THEIRS, OURS, tos=8 << 2 | CE), peer=REMOTE),
])

ALL = {**CONFIG, 'key': KEY, 'greChecksum': True, 'greSequence': True}
write('all-options', ALL, [
    outbound('the first packet', 'RFC 2890 2', p, item='G1, G6, G8', output=outer(p, KEY, chksum_present=1, seqnum_present=1, sequence_number=0), peer=REMOTE),
    outbound('of odd length', 'RFC 2784 2.5', tcp, item='G1, G6', output=outer(tcp, KEY, chksum_present=1, seqnum_present=1, sequence_number=0), peer=REMOTE),
    inbound('any number at first', 'RFC 2890 2.2', gre_in(q, chksum_present=1, key_present=1, key=KEY, seqnum_present=1, sequence_number=7), item='G6, G8', output=q, peer=REMOTE),
    inbound('no checksum', 'RFC 2784 2.2', gre_in(q, key_present=1, key=KEY, seqnum_present=1, sequence_number=7), item='G4', output=q, peer=REMOTE),
    inbound('no number', 'RFC 2890 2.2', gre_in(q, chksum_present=1, key_present=1, key=KEY), 'gre-sequence', item='G8'),
])


def fragments(packet, size, header=20):
    """RFC 791 3.2: what scapy's fragment() does not see to, which is options by their copy flag, as Linux does it."""
    whole = bytes(packet)
    data, first = whole[header:], IP(whole[:header])
    for at in range(0, len(data), size):
        part = data[at:at + size]
        ip = IP(bytes(first)[:20])
        kept = b''.join(o if at == 0 or o[0] & 0x80 else b'\x01' * len(o) for o in OPTIONS) if header > 20 else b''
        more = at + size < len(data) or int(first.flags.MF)
        head = IP(src=ip.src, dst=ip.dst, id=ip.id, tos=ip.tos, ttl=ip.ttl, proto=ip.proto, flags='MF' if more else 0, frag=first.frag + at // 8,
                  ihl=header // 4, len=header + len(part), chksum=0)
        yield fix_checksum(bytes(head)[:20] + kept + part, header)


# Router alert (copied), record route (not copied), and two more bytes.
OPTIONS = [b'\x94\x04\x00\x00', b'\x07\x07\x04' + b'\x00' * 4, b'\x01']
NARROW = {**CONFIG, 'mtu': 576}
long = ping(size=1200)
again = IP(src=OURS, dst=THEIRS, id=5, frag=100, flags='MF') / Raw(bytes(range(256)) * 3)
with_options = IP(src=OURS, dst=THEIRS, id=6, proto=253, ihl=8) / Raw(b''.join(OPTIONS) + bytes(i & 255 for i in range(900)))
with_options = fix_checksum(bytes(with_options), 32)
fits, dont = ping(size=548), ping(size=549, flags='DF')
write('narrow', NARROW, [
    outbound('just fits', 'RFC 7588 3', fits, item='M1', output=outer(fits), peer=REMOTE),
    outbound('too long, with DF', 'RFC 1191 4', dont, 'too-big', item='M2, I2, I3', answer=reply(dont, 4, 576)),
    outbound('too long, without DF', 'RFC 791 3.2', long, item='M3', outputs=[outer(f) for f in fragments(long, 552)], peer=REMOTE),
    outbound('a fragment that is too long', 'RFC 791 3.2', again, item='M3, M5', outputs=[outer(f) for f in fragments(again, 552)], peer=REMOTE),
    outbound('options by their copy flag', 'RFC 791 3.1', with_options, item='M5', outputs=[outer(f) for f in fragments(with_options, 544, 32)], peer=REMOTE),
    outbound('a later fragment with DF', 'RFC 1122 3.2.2', IP(src=OURS, dst=THEIRS, id=5, frag=100, flags='DF') / Raw(b'f' * 600), 'too-big', item='I1'),
])


def syn(mss, src=OURS, dst=THEIRS, options=None, flags='S'):
    return IP(src=src, dst=dst, id=9, flags='DF') / TCP(sport=40000, dport=80, flags=flags, options=options or [('MSS', mss)])


odd = [('NOP', None), ('MSS', 1460), ('WScale', 7)]
odd_after = [('NOP', None), ('MSS', 1360), ('WScale', 7)]
write('clamp', {**CONFIG, 'mtu': 1400, 'clampMss': True}, [
    outbound('SYN', 'RFC 9293 3.7.1', syn(1460), item='M7', output=outer(syn(1360)), peer=REMOTE),
    outbound('SYN, less already', 'RFC 9293 3.7.1', syn(536), item='M7', output=outer(syn(536)), peer=REMOTE),
    outbound('at an odd place', 'RFC 1071 2 (B)', syn(0, options=odd), item='M7', output=outer(syn(0, options=odd_after)), peer=REMOTE),
    outbound('no SYN', 'RFC 9293 3.7.1', syn(1460, flags='A'), item='M7', output=outer(syn(1460, flags='A')), peer=REMOTE),
    inbound('SYN and ACK', 'RFC 9293 3.7.1', gre_in(syn(1460, THEIRS, OURS, flags='SA')), item='M7', output=syn(1360, THEIRS, OURS, flags='SA'), peer=REMOTE),
])

# This VM has no route to the other one: the container is told host unreachable, whatever the reason is, once.
REFUSED_PING = outbound('an echo request', 'RFC 1812 5.2.7.1', p, item='I5', output=outer(p), peer=REMOTE, refused=0, answer=reply(p, 1))
icmp_error = IP(src=OURS, dst=THEIRS, id=9) / ICMP(type=11, code=0) / Raw(bytes(ping(THEIRS, OURS))[:28])
write('refused', CONFIG, [
    REFUSED_PING,
    outbound('a TCP segment, prohibited', 'RFC 1812 5.2.7.1', tcp, item='I5', output=outer(tcp), peer=REMOTE, refused=10, answer=reply(tcp, 1)),
    outbound('an ICMP error', 'RFC 1122 3.2.2', icmp_error, item='I1', output=outer(icmp_error), peer=REMOTE, refused=1),
    outbound('a later fragment', 'RFC 1122 3.2.2', IP(src=OURS, dst=THEIRS, id=5, frag=100) / Raw(b'f' * 60), item='I1',
             output=outer(IP(src=OURS, dst=THEIRS, id=5, frag=100) / Raw(b'f' * 60)), peer=REMOTE, refused=1),
])
narrowed = list(fragments(long, 552))
write('refused-narrow', NARROW, [
    outbound('fragments: the packet as it was', 'RFC 1812 4.3.2.3', long, item='I2', outputs=[outer(f) for f in narrowed], peer=REMOTE, refused=0, answer=reply(long, 1)),
])


def segments(data, size, first, last='PA'):
    """TCP of one flow (RFC 9293), `size` bytes a segment; only the last has other flags."""
    for n, at in enumerate(range(0, len(data), size)):
        flags = last if at + size >= len(data) else 'A'
        yield IP(src=THEIRS, dst=OURS, id=first + n, flags='DF') / TCP(sport=40000, dport=80, seq=1 + at, ack=1, flags=flags) / Raw(data[at:at + size])


def datagrams(data, size, first):
    for n, at in enumerate(range(0, len(data), size)):
        yield IP(src=THEIRS, dst=OURS, id=first + n & 0xffff) / UDP(sport=40000, dport=40001) / Raw(data[at:at + size])


def joined(packets, is_list=False):
    """As Linux merges packets: the first one's headers, with the length of all and TCP's last flags. The checksum is left open: it is the sum of the pseudo
    header. In a list (rx-gro-list) it is still that of the first packet."""
    packets = [IP(bytes(p)) for p in packets]
    first, last = packets[0], packets[-1]
    kind = TCP if TCP in first else UDP
    data = b''.join(bytes(p[Raw]) for p in packets)
    length = len(first[kind]) - len(first[Raw]) + len(data)
    whole = first.copy()
    whole[Raw].load, whole.len, whole.chksum = data, 20 + length, None
    if kind is UDP:
        whole[UDP].len = length
    if not is_list:
        pseudo = bytes(first)[12:20] + bytes([0, first.proto]) + length.to_bytes(2, 'big')
        s = sum(int.from_bytes(pseudo[i:i + 2], 'big') for i in range(0, 12, 2))
        while s >> 16:
            s = (s & 0xffff) + (s >> 16)
        whole[kind].chksum = s
        if kind is TCP:
            whole[TCP].flags = last[TCP].flags
    return whole


NOT_MERGED = 0xffffffff
data = bytes(i * 7 & 255 for i in range(2500))
tcp, tcp_pushed = list(segments(data, 1000, 7, 'A')), list(segments(data, 1000, 7))
tcp_552 = list(segments(data, 512, 7))
udp = list(datagrams(data, 700, 7))
short, alone = list(datagrams(data[:9], 4, 0xffff)), next(segments(data[:1200], 1200, 7))
jumbo = next(datagrams(data, 2500, 7))
first_sum = int.from_bytes(bytes(gre_in(tcp_pushed[0], chksum_present=1))[24:26], 'big')
write('merged', CONFIG, [
    inbound('TCP', 'Linux tcp_gro_complete', gre_in(joined(tcp_pushed)), merged=1000, outputs=tcp_pushed, peer=REMOTE),
    inbound('TCP, with the GRE checksum of the first packet', 'Linux gre_gro_receive', gre_in(joined(tcp_pushed), chksum_present=1, chksum=first_sum), merged=1000, outputs=tcp_pushed, peer=REMOTE),
    inbound('TCP, not merged, with that GRE checksum', 'RFC 2784 2.5', gre_in(joined(tcp_pushed), chksum_present=1, chksum=first_sum), 'gre-checksum', merged=NOT_MERGED),
    inbound('TCP, a list', 'Linux skb_gro_receive_list', gre_in(joined(tcp, True)), merged=1000, outputs=tcp, peer=REMOTE),
    inbound('UDP', 'Linux udp_gro_complete', gre_in(joined(udp)), merged=700, outputs=udp, peer=REMOTE),
    inbound('UDP, a list', 'Linux skb_gro_receive_list', gre_in(joined(udp, True)), merged=700, outputs=udp, peer=REMOTE),
    inbound('UDP, short', 'Linux udp_gro_complete', gre_in(joined(short)), merged=4, outputs=short, peer=REMOTE),
    inbound('TCP, nobody knows the size', 'no size is guessed upwards', gre_in(joined(tcp_pushed)), outputs=tcp_552, peer=REMOTE),
    inbound('TCP, not merged', 'Linux CHECKSUM_PARTIAL', gre_in(joined([alone])), merged=NOT_MERGED, output=alone, peer=REMOTE),
    inbound('TCP, one segment', 'Linux CHECKSUM_PARTIAL', gre_in(joined([alone])), merged=1200, output=alone, peer=REMOTE),
    inbound('UDP, nobody knows the size', 'never delivered glued together', gre_in(joined(udp)), 'merged'),
    inbound('UDP, a list, nobody knows the size', 'never delivered glued together', gre_in(joined(udp, True)), 'merged'),
    inbound('TCP, a list, nobody knows the size', 'never delivered glued together', gre_in(joined(tcp, True)), 'merged'),
    inbound('UDP, longer than our tunnels carry', 'RFC 1191 3', gre_in(jumbo), output=jumbo, peer=REMOTE),
])
