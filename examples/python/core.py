"""The packet core in wasmtime: docs/abi.md in Python."""

import struct
from enum import Enum
from typing import NamedTuple

import wasmtime

# The ABI that this file is written for: the only number in it that the module has a name for.
EXPECTED_VERSION = 5


class CoreError(Exception):
    """The core is not what this file is written for, or does not take what it is told."""


class Direction(Enum):
    """The way that packets go: out of containers, or in from the underlay."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class Config(NamedTuple):
    """What `configure` is told. Addresses are numbers: 10.0.0.1 is 0x0a000001."""

    local: int
    encapsulation: int  # ENCAPSULATION_GRE or ENCAPSULATION_GRE_UDP of the module
    options: int = 0
    key: int = 0
    ttl: int = 64
    dscp: int = 0
    mtu: int = 1476  # of an underlay with 1,500 and plain GRE


class Mapping(NamedTuple):
    """An overlay prefix, and the underlay prefix that its VMs have addresses of."""

    overlay: int
    overlay_length: int
    underlay: int
    underlay_length: int


class Module:
    """The compiled packet core, of which there may be many instances."""

    def __init__(self, path: str) -> None:
        self.engine = wasmtime.Engine()
        self.module = wasmtime.Module.from_file(self.engine, path)


class Core:
    """One instance of the module. Its state is its memory, so cores do not share anything."""

    def __init__(self, module: Module) -> None:
        self._store = wasmtime.Store(module.engine)
        instance = wasmtime.Instance(self._store, module.module, [])
        exports = instance.exports(self._store)
        self._functions = {
            name: it for name, it in exports.items() if isinstance(it, wasmtime.Func)
        }
        # Constants by the names that they have in the module.
        self.constants = {
            name: it.value(self._store)
            for name, it in exports.items()
            if isinstance(it, wasmtime.Global)
        }
        version = self["ABI_VERSION"]
        if version != EXPECTED_VERSION:
            raise CoreError(f"the core has ABI version {version}, expected {EXPECTED_VERSION}")
        # Memory never grows, so a view of it stays good. It is little-endian.
        self._memory = memoryview(exports["memory"].get_buffer_ptr(self._store)).cast("B")
        self.attach(0)

    def __getitem__(self, name: str) -> int:
        """A constant of the module."""
        try:
            return self.constants[name]
        except KeyError:
            raise CoreError(f"the core has no constant {name}") from None

    def _call(self, function: str, *parameters: int | float) -> int:
        return self._functions[function](self._store, *parameters)

    def attach(self, offloads: int) -> None:
        """Says what the host's devices can do, in OFFLOAD_ bits."""
        # Base 0: pointers in messages are places in memory.
        self._call("attach", 0.0, offloads, 1)

    def configure(self, config: Config) -> None:
        """Says what this VM is, and forgets all mappings."""
        c = config
        self._call(
            "configure", c.local, c.options, c.key, c.ttl, c.dscp, c.encapsulation, c.mtu
        )

    def map(self, mapping: Mapping) -> None:
        if self._call("addMapping", *mapping) < 0:
            lengths = f"/{mapping.overlay_length} to /{mapping.underlay_length}"
            raise CoreError(f"the mapping {lengths} does not fit the core")

    @property
    def packet_room(self) -> int:
        """Most bytes that a packet may have."""
        return self["SLOT_SIZE"] - self["HEADROOM"]

    def put(self, index: int, packet: bytes, merged: int = 0) -> None:
        """Puts a packet into slot `index`.

        With OFFLOAD_VIRTIO, it begins with the virtio header on the overlay side. Inbound, `merged`
        is what is known of merging; 0 is nothing.
        """
        if len(packet) > self.packet_room:
            raise CoreError(f"a packet of {len(packet)} bytes, expected at most {self.packet_room}")
        at = self["SLOTS"] + index * self["SLOT_SIZE"] + self["HEADROOM"]
        self._memory[at : at + len(packet)] = packet
        descriptor = self._descriptor(index)
        self._store32(descriptor + self["DESCRIPTOR_ADDRESS"], at)
        self._store32(descriptor + self["DESCRIPTOR_LENGTH"], len(packet))
        self._store32(descriptor + self["DESCRIPTOR_SEGMENT"], 0)
        self._store32(descriptor + self["DESCRIPTOR_MERGED"], merged)

    def call(self, direction: Direction, first: int, count: int, now: float) -> int:
        """Handles packets `first` to `count` - 1 at the time `now`, in ms.

        Returns the first that there was no room for, or `count`.
        """
        function = "encapsulate" if direction is Direction.OUTBOUND else "decapsulate"
        return self._call(function, first, count, now)

    def verdict(self, index: int) -> int:
        """What became of a packet: 0, or a negative drop reason."""
        return self._load("<i", self._descriptor(index) + self["DESCRIPTOR_VERDICT"])

    def peer(self, index: int) -> bytes:
        """The remote VM of a packet, in network order."""
        return self._load("4s", self._descriptor(index) + self["DESCRIPTOR_PEER"])

    def messages(self) -> list[int]:
        """The messages that the last call made, but for replies."""
        return [message for port in range(self["MAX_PORTS"]) for message in self._messages_of(port)]

    def replies(self) -> list[int]:
        """The ICMP messages to containers that the last call made.

        They quote packets where these lie, so they are to be read before slots are filled anew.
        """
        return self._messages_of(self["REPLY_PORT"])

    def _messages_of(self, port: int) -> list[int]:
        count = self._load("<I", self["MESSAGE_COUNTS"] + 4 * port)
        first = port * self["MESSAGES_PER_PORT"]
        return list(range(first, first + count))

    def message(self, message: int) -> bytes:
        """The bytes of a message, gathered from where they lie."""
        record = self["MESSAGE_TABLE"] + message * self["MESSAGE_SIZE"]
        iov = self._load("<Q", record + self["MESSAGE_IOV"])
        pieces = []
        for _ in range(self._load("<Q", record + self["MESSAGE_IOV_COUNT"])):
            base = self._load("<Q", iov + self["IOV_BASE"])
            pieces.append(self._memory[base : base + self._load("<Q", iov + self["IOV_LENGTH"])])
            iov += self["IOV_SIZE"]
        return b"".join(pieces)

    def refuse(self, message: int, code: int, now: float) -> None:
        """Says that a message could not be written; `code` is the ICMP code of why, or -1."""
        self._call("refuse", message, code, now)

    def received(self, direction: Direction) -> float:
        """Packets: those that were forwarded, and all drops."""
        return self._counter(direction, "COUNTERS_RECEIVED")

    def forwarded(self, direction: Direction) -> float:
        return self._counter(direction, "COUNTERS_FORWARDED")

    def drops(self, direction: Direction) -> dict[int, float]:
        """Packets by their verdict, from -1 downwards."""
        verdicts = range(1, self["VERDICTS"])
        return {-r: self._counter(direction, "COUNTERS_DROPS", 8 * r) for r in verdicts}

    def _counter(self, direction: Direction, name: str, offset: int = 0) -> float:
        counters = self[f"{direction.name}_COUNTERS"]
        return self._load("<d", counters + self[name] + offset)

    def _descriptor(self, index: int) -> int:
        return self["DESCRIPTORS"] + index * self["DESCRIPTOR_SIZE"]

    def _load(self, form: str, at: int):
        return struct.unpack_from(form, self._memory, at)[0]

    def _store32(self, at: int, value: int) -> None:
        struct.pack_into("<I", self._memory, at, value)
