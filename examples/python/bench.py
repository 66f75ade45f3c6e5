"""How long the core takes for packets that it forwards.

It is the least of many short rounds, so that what else runs here shows least.
"""

import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from time import perf_counter_ns

from core import Config, Core, CoreError, Direction, Mapping, Module

# ns of calls before the first round, so that caches are warm.
WARM_UP = 1_000_000_000
ROUNDS = 50
# ns that a round takes at least, and calls between two looks at the clock.
ROUND = 20_000_000
CALLS = 16

HERE = int(IPv4Address("192.168.16.32"))
THERE = int(IPv4Address("192.168.16.33"))
CONTAINER = int(IPv4Address("10.16.32.91"))
OTHER_CONTAINER = int(IPv4Address("10.16.33.7"))
MAPPING = Mapping(int(IPv4Address("10.0.0.0")), 8, int(IPv4Address("192.168.0.0")), 16)

TCP = 6
UDP = 17
GRE = 47

# Bytes: of a small packet, and of the headers of IPv4 and of TCP.
SMALL = 64
IPV4_HEADER = 20
TCP_HEADER = 20
# Super-packets of so many segments with so many bytes of payload, so many of them a call.
SEGMENTS = 45
SEGMENT = 1424
SUPER_PACKETS = 8


def run_bench(module: Module) -> None:
    """Prints ns per packet."""
    bench(module, "encapsulate-64", Direction.OUTBOUND, prepare_encapsulate)
    bench(module, "decapsulate-64", Direction.INBOUND, prepare_decapsulate)
    bench(module, "cut-64k", Direction.OUTBOUND, prepare_cut)


def bench(module: Module, name: str, direction: Direction, prepare: Callable[[Core], int]) -> None:
    core = Core(module)
    core.configure(Config(HERE, core["ENCAPSULATION_GRE"]))
    core.map(MAPPING)
    count = prepare(core)
    measure(core, direction, count, WARM_UP)
    least = min(measure(core, direction, count, ROUND) for _ in range(ROUNDS))
    if core.forwarded(direction) != core.received(direction):
        raise CoreError(f"{name}: packets were dropped")
    print(f"{name} {least:.1f}")


def measure(core: Core, direction: Direction, count: int, least: int) -> float:
    """A round of at `least` so many ns: the ns that each of the `count` packets in the slots takes."""
    packets = 0
    time = 0
    start = perf_counter_ns()
    while time < least:
        for _ in range(CALLS):
            if core.call(direction, 0, count, 1.0) != count:
                raise CoreError(f"a call had no room for {count} packets")
        packets += CALLS * count
        time = perf_counter_ns() - start
    return time / packets


def prepare_encapsulate(core: Core) -> int:
    for i in range(core["BATCH_SIZE"]):
        core.put(i, ipv4_packet(CONTAINER, OTHER_CONTAINER, UDP, bytes(SMALL - IPV4_HEADER)))
    return core["BATCH_SIZE"]


def prepare_decapsulate(core: Core) -> int:
    inner = ipv4_packet(OTHER_CONTAINER, CONTAINER, UDP, bytes(SMALL - IPV4_HEADER))
    gre = b"\x00\x00\x08\x00"  # no options, IPv4
    for i in range(core["BATCH_SIZE"]):
        core.put(i, ipv4_packet(THERE, HERE, GRE, gre + inner))
    return core["BATCH_SIZE"]


def prepare_cut(core: Core) -> int:
    core.attach(core["OFFLOAD_VIRTIO"])
    virtio = bytearray(core["VIRTIO_SIZE"])
    virtio[core["VIRTIO_FLAGS"]] = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM
    virtio[core["VIRTIO_GSO_TYPE"]] = 1  # VIRTIO_NET_HDR_GSO_TCPV4
    struct.pack_into("<H", virtio, core["VIRTIO_HEADER_LENGTH"], IPV4_HEADER + TCP_HEADER)
    struct.pack_into("<H", virtio, core["VIRTIO_GSO_SIZE"], SEGMENT)
    struct.pack_into("<H", virtio, core["VIRTIO_CHECKSUM_START"], IPV4_HEADER)
    struct.pack_into("<H", virtio, core["VIRTIO_CHECKSUM_OFFSET"], 16)
    tcp = bytearray(TCP_HEADER + SEGMENTS * SEGMENT)
    tcp[12] = 0x50  # a header of 5 words
    for i in range(SUPER_PACKETS):
        core.put(i, virtio + ipv4_packet(CONTAINER, OTHER_CONTAINER, TCP, tcp))
    return SUPER_PACKETS


def ipv4_packet(source: int, destination: int, protocol: int, payload: bytes) -> bytes:
    """A packet without options."""
    length = IPV4_HEADER + len(payload)

    def header(checksum: int) -> bytes:
        return struct.pack(
            ">BBHHHBBHII", 0x45, 0, length, 0, 0, 64, protocol, checksum, source, destination
        )

    total = sum(struct.unpack(">10H", header(0)))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return header(total ^ 0xFFFF) + payload
