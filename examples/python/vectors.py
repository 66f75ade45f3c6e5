"""Golden packets, one a line: how a host shows that it does what the others do."""

from core import Config, Core, Direction, Mapping, Module

NOW = 1.0


def run_vectors(module: Module, path: str) -> None:
    """Runs each line of a file on a core of its own, and prints what became of it."""
    with open(path, encoding="ascii") as file:
        for line in file:
            print(run_vector(Core(module), line.rstrip("\n").split(" ")))


def run_vector(core: Core, words: list[str]) -> str:
    direction, *settings = words[:8]
    merged, refused = (int(word) for word in words[8:10])
    packet = bytes.fromhex(words[10])
    local, options, key, ttl, dscp, encapsulation, mtu = (int(word) for word in settings)
    core.configure(Config(local, encapsulation, options, key, ttl, dscp, mtu))
    for i in range(11, len(words), 4):
        core.map(Mapping(*(int(word) for word in words[i : i + 4])))
    core.put(0, packet, merged)
    core.call(Direction(direction), 0, 1, NOW)
    if refused >= 0:
        for message in core.messages():
            core.refuse(message, refused, NOW)
    messages, replies = in_hex(core, core.messages()), in_hex(core, core.replies())
    return f"{core.verdict(0)} {core.peer(0).hex()} {messages} {replies}"


def in_hex(core: Core, messages: list[int]) -> str:
    """The bytes of messages with commas between them, or - if there are none."""
    return ",".join(core.message(message).hex() for message in messages) or "-"
