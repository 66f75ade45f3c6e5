"""A host of Inlay's packet core, in Python.

main.py CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
main.py CORE.wasm vectors IN.txt
main.py CORE.wasm bench
"""

import ipaddress
import sys
from collections.abc import Iterable

import wasmtime

from bench import run_bench
from core import Config, Core, CoreError, Direction, Mapping, Module
from pcap import PcapError, Time, Writer, read_packets, replaced
from vectors import VectorError, run_vectors

USAGE = """usage: main.py CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
       main.py CORE.wasm vectors IN.txt
       main.py CORE.wasm bench"""

DIRECTIONS = {"encapsulate": Direction.OUTBOUND, "decapsulate": Direction.INBOUND}


def run(arguments: list[str]) -> None:
    match arguments:
        case [
            path,
            ("encapsulate" | "decapsulate") as mode,
            local,
            overlay,
            underlay,
            source,
            target,
        ]:
            core = mesh_core(Module(path), local, overlay, underlay)
            run_file(core, DIRECTIONS[mode], source, target)
        case [path, "vectors", vectors]:
            run_vectors(Module(path), vectors)
        case [path, "bench"]:
            run_bench(Module(path))
        case _:
            raise CoreError(USAGE)


def mesh_core(module: Module, local: str, overlay: str, underlay: str) -> Core:
    """A core that is the VM `local` of a mesh."""
    core = Core(module)
    core.configure(Config(int(ipaddress.IPv4Address(local)), core["ENCAPSULATION_GRE"]))
    prefixes = [ipaddress.IPv4Network(it, strict=False) for it in (overlay, underlay)]
    core.map(
        Mapping(*(number for it in prefixes for number in (int(it.network_address), it.prefixlen)))
    )
    return core


def run_file(core: Core, direction: Direction, source: str, target: str) -> None:
    skipped = 0

    def fitting(packets: Iterable[tuple[Time, bytes]]) -> Iterable[tuple[Time, bytes]]:
        nonlocal skipped
        for time, packet in packets:
            if len(packet) <= core.packet_room:
                yield time, packet
            else:
                skipped += 1

    with open(source, "rb") as file, replaced(target) as out:
        writer = Writer(out)
        for times in put_batches(core, fitting(read_packets(file))):
            handle(core, direction, times, writer)
    print(f"received {core.received(direction):.0f}")
    print(f"forwarded {core.forwarded(direction):.0f}")
    for verdict, packets in core.drops(direction).items():
        if packets > 0:
            print(f"drop {verdict} {packets:.0f}")
    if skipped > 0:
        print(f"skipped {skipped}")


def put_batches(core: Core, packets: Iterable[tuple[Time, bytes]]) -> Iterable[list[Time]]:
    """Puts packets into slots, a batch at a time. Yields the times of each."""
    times: list[Time] = []
    for time, packet in packets:
        core.put(len(times), packet)
        times.append(time)
        if len(times) == core["BATCH_SIZE"]:
            yield times
            times = []
    if times:
        yield times


def handle(core: Core, direction: Direction, times: list[Time], writer: Writer) -> None:
    """Handles the packets in the first slots, which came together."""
    first = 0
    # Where there is no room for more messages the core stops. They are written, and it goes on.
    while first < len(times):
        first = core.call(direction, first, len(times), times[0].milliseconds)
        for message in core.messages() + core.replies():
            writer.write(times[0], core.message(message))


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except (CoreError, PcapError, VectorError, OSError, ValueError, wasmtime.WasmtimeError) as error:
        sys.exit(f"main.py: {error}")
