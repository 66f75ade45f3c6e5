"""Classic pcap files: https://www.tcpdump.org/manpages/pcap-savefile.5.html"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

MAGIC_MICROSECONDS = 0xA1B2C3D4
FILE_HEADER = "IHHiIII"
RECORD_HEADER = "IIII"
VERSION = (2, 4)
SNAP_LENGTH = 65535
# What libpcap takes for the longest packet (MAXIMUM_SNAPLEN).
MOST_BYTES = 262144

LINK_ETHERNET = 1
LINK_RAW = 101
LINK_IPV4 = 228

ETHERNET_HEADER_SIZE = 14
ETHERTYPE_IPV4 = b"\x08\x00"


class PcapError(Exception):
    """A file is no pcap that is understood, or is damaged."""


class Time(NamedTuple):
    """When a packet was captured."""

    seconds: int
    microseconds: int

    @property
    def milliseconds(self) -> float:
        return self.seconds * 1000 + self.microseconds / 1000


def read_packets(file: BinaryIO) -> Iterator[tuple[Time, bytes]]:
    """The IPv4 packets of a file. Raises PcapError where the file is damaged."""
    header = file.read(struct.calcsize("=" + FILE_HEADER))
    if len(header) < struct.calcsize("=" + FILE_HEADER):
        raise PcapError(f"{file.name}: the file ends in its header")
    order = next(
        (it for it in "<>" if header[:4] == struct.pack(it + "I", MAGIC_MICROSECONDS)), None
    )
    if order is None:
        raise PcapError(f"{file.name}: not a pcap file with microseconds")
    link_type = struct.unpack(order + FILE_HEADER, header)[-1]
    if link_type not in (LINK_ETHERNET, LINK_RAW, LINK_IPV4):
        raise PcapError(f"{file.name}: link type {link_type}: expected 1, 101 or 228")
    for time, frame in read_records(file, order):
        if link_type != LINK_ETHERNET:
            yield time, frame
        elif frame[ETHERNET_HEADER_SIZE - 2 : ETHERNET_HEADER_SIZE] == ETHERTYPE_IPV4:
            yield time, frame[ETHERNET_HEADER_SIZE:]


def read_records(file: BinaryIO, order: str) -> Iterator[tuple[Time, bytes]]:
    """What was captured, and when; `order` is the byte order as struct has it."""
    record_header = struct.Struct(order + RECORD_HEADER)
    number = 0
    while header := file.read(record_header.size):
        number += 1
        if len(header) < record_header.size:
            raise PcapError(f"{file.name}: the file ends in packet {number}")
        seconds, microseconds, length, _ = record_header.unpack(header)
        if length > MOST_BYTES:
            problem = f"{length} bytes: expected at most {MOST_BYTES}"
            raise PcapError(f"{file.name}: packet {number}: {problem}")
        frame = file.read(length)
        if len(frame) < length:
            raise PcapError(f"{file.name}: the file ends in packet {number}")
        yield Time(seconds, microseconds), frame


@contextmanager
def replaced(path: str) -> Iterator[BinaryIO]:
    """A file to write, which has another name until it is whole.

    So an error leaves no half of it behind, and nothing that was there is lost.
    """
    # A device or a pipe has to be written to itself.
    is_other = os.path.exists(path) and not os.path.isfile(path)
    name = path if is_other else f"{path}.{os.getpid()}.part"
    try:
        with open(name, "wb") as file:
            yield file
        if name != path:
            os.replace(name, path)
    except BaseException:
        if name != path:
            with suppress(OSError):
                os.remove(name)
        raise


class Writer:
    """Writes IP packets (LINKTYPE_RAW)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.write(
            struct.pack(
                "<" + FILE_HEADER, MAGIC_MICROSECONDS, *VERSION, 0, 0, SNAP_LENGTH, LINK_RAW
            )
        )

    def write(self, time: Time, packet: bytes) -> None:
        self._file.write(struct.pack("<" + RECORD_HEADER, *time, len(packet), len(packet)))
        self._file.write(packet)
