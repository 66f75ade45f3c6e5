"""Golden packets, one a line: how a host shows that it does what the others do."""

import re

from core import Config, Core, CoreError, Direction, Mapping, Module

NOW = 1.0

U32 = 0xFFFFFFFF
# The largest that numbers may be: LOCAL OPTIONS KEY TTL DSCP ENCAPSULATION MTU, and of a mapping.
LARGEST = (U32, 255, U32, 255, 63, 1, 65535)
LARGEST_OF_MAPPING = (U32, 32, U32, 32)
# Words before the first mapping.
WORDS = 11


class VectorError(Exception):
    """A line is no vector."""


def run_vectors(module: Module, path: str) -> None:
    """Runs each line of a file on a core of its own, and prints what became of it."""
    with open(path, encoding="latin-1", newline="\n") as file:
        for number, line in enumerate(file, 1):
            try:
                print(run_vector(Core(module), line.removesuffix("\n").split(" ")))
            except (VectorError, CoreError) as error:
                raise VectorError(f"{path}: line {number}: {error}") from None


def run_vector(core: Core, words: list[str]) -> str:
    if len(words) < WORDS + 4 or (len(words) - WORDS) % 4 != 0:
        raise VectorError(f"{len(words)} words: expected {WORDS}, and four for each mapping")
    if words[0] not in [it.value for it in Direction]:
        raise VectorError(f'"{words[0]}": expected outbound or inbound')
    settings = [number_of(*it) for it in zip(words[1:8], LARGEST)]
    local, options, key, ttl, dscp, encapsulation, mtu = settings
    merged = number_of(words[8], U32)
    refused = -1 if words[9] == "-1" else number_of(words[9], 255)
    packet = packet_of(words[10])
    core.configure(Config(local, encapsulation, options, key, ttl, dscp, mtu))
    for i in range(WORDS, len(words), 4):
        numbers = zip(words[i : i + 4], LARGEST_OF_MAPPING)
        core.map(Mapping(*(number_of(*it) for it in numbers)))
    core.put(0, packet, merged)
    core.call(Direction(words[0]), 0, 1, NOW)
    if refused >= 0:
        for message in core.messages():
            core.refuse(message, refused, NOW)
    messages, replies = in_hex(core, core.messages()), in_hex(core, core.replies())
    return f"{core.verdict(0)} {core.peer(0).hex()} {messages} {replies}"


def number_of(word: str, largest: int) -> int:
    if not re.fullmatch("0*[0-9]{1,10}", word) or int(word) > largest:
        raise VectorError(f'"{word}": expected a whole number from 0 to {largest}')
    return int(word)


def packet_of(word: str) -> bytes:
    if not re.fullmatch("-|([0-9a-fA-F]{2})+", word):
        raise VectorError("the packet: expected pairs of hex digits, or - for an empty one")
    return b"" if word == "-" else bytes.fromhex(word)


def in_hex(core: Core, messages: list[int]) -> str:
    """The bytes of messages with commas between them, or - if there are none."""
    return ",".join(core.message(message).hex() for message in messages) or "-"
