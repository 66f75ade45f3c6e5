// A host of Inlay's packet core, in Go.
//
//	inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
//	inlay-host CORE.wasm vectors IN.txt
//	inlay-host CORE.wasm bench
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
)

const usage = `usage: inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
       inlay-host CORE.wasm vectors IN.txt
       inlay-host CORE.wasm bench`

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "inlay-host:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) < 2 {
		return errors.New(usage)
	}
	path, mode, rest := arguments[0], arguments[1], arguments[2:]
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	module, err := Compile(ctx, wasm)
	if err != nil {
		return err
	}
	switch {
	case mode == "encapsulate" && len(rest) == 5:
		return runFile(ctx, module, Outbound, rest)
	case mode == "decapsulate" && len(rest) == 5:
		return runFile(ctx, module, Inbound, rest)
	case mode == "vectors" && len(rest) == 1:
		return runVectors(ctx, module, rest[0])
	case mode == "bench" && len(rest) == 0:
		return runBench(ctx, module)
	}
	return errors.New(usage)
}

// number is an IPv4 address as the core takes it: 10.0.0.1 is 0x0a000001.
func number(address netip.Addr) (uint32, error) {
	if !address.Is4() {
		return 0, fmt.Errorf("address %q: expected one of IPv4", address)
	}
	bytes := address.As4()
	return binary.BigEndian.Uint32(bytes[:]), nil
}

func parseAddress(text string) (uint32, error) {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return 0, err
	}
	return number(address)
}

func parsePrefix(text string) (uint32, uint32, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return 0, 0, err
	}
	address, err := number(prefix.Addr())
	return address, uint32(prefix.Bits()), err
}

// meshCore makes a core that is the VM local of a mesh.
func meshCore(ctx context.Context, module *Module, local, overlay, underlay string) (*Core, error) {
	core, err := module.New(ctx)
	if err != nil {
		return nil, err
	}
	gre, err := core.Constant("ENCAPSULATION_GRE")
	if err != nil {
		return nil, err
	}
	config := Config{TTL: 64, Encapsulation: gre, MTU: 1476} // of an underlay with 1,500
	if config.Local, err = parseAddress(local); err != nil {
		return nil, err
	}
	var mapping Mapping
	if mapping.Overlay, mapping.OverlayLength, err = parsePrefix(overlay); err != nil {
		return nil, err
	}
	if mapping.Underlay, mapping.UnderlayLength, err = parsePrefix(underlay); err != nil {
		return nil, err
	}
	if err := core.Configure(config); err != nil {
		return nil, err
	}
	return core, core.Map(mapping)
}

func runFile(ctx context.Context, module *Module, direction Direction, rest []string) error {
	core, err := meshCore(ctx, module, rest[0], rest[1], rest[2])
	if err != nil {
		return err
	}
	defer core.Close()
	in, err := os.Open(rest[3])
	if err != nil {
		return err
	}
	defer in.Close()
	reader, err := NewPcapReader(in)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[3], err)
	}
	out, err := CreateOutput(rest[4])
	if err != nil {
		return err
	}
	defer out.Discard()
	writer := NewPcapWriter(out)
	skipped, err := handleAll(core, direction, reader, writer)
	if err != nil {
		return fmt.Errorf("%s: %w", rest[3], err)
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	if err := out.Commit(); err != nil {
		return err
	}
	printCounters(core, direction)
	if skipped > 0 {
		fmt.Println("skipped", skipped)
	}
	return nil
}

// handleAll handles a file in batches. It returns how many packets were left out, since they are longer
// than a slot.
func handleAll(core *Core, direction Direction, reader *PcapReader, writer *PcapWriter) (int, error) {
	var first Time
	count, skipped := 0, 0
	for {
		time, packet, err := reader.Read()
		if err == io.EOF {
			return skipped, handle(core, direction, count, first, writer)
		}
		if err != nil {
			return skipped, err
		}
		if len(packet) > core.PacketRoom() {
			skipped++
			continue
		}
		if count == 0 {
			first = time
		}
		// What a capture shows may have been merged, or not: 0 is that the host does not know.
		core.Put(count, packet, 0)
		if count++; count == core.BatchSize() {
			if err := handle(core, direction, count, first, writer); err != nil {
				return skipped, err
			}
			count = 0
		}
	}
}

// handle handles the packets in slots 0 to count-1, which came together.
func handle(core *Core, direction Direction, count int, time Time, writer *PcapWriter) error {
	var bytes []byte
	// Where there is no room for more messages the core stops. They are written then, and it goes on.
	for next := 0; next < count; {
		var err error
		if next, err = core.Call(direction, next, count, time.Milliseconds()); err != nil {
			return err
		}
		for _, message := range append(core.Messages(), core.Replies()...) {
			bytes = core.AppendMessage(bytes[:0], message)
			writer.Write(time, bytes)
		}
	}
	return nil
}

// printCounters prints where all packets went.
func printCounters(core *Core, direction Direction) {
	fmt.Printf("received %.0f\n", core.Received(direction))
	fmt.Printf("forwarded %.0f\n", core.Forwarded(direction))
	for reason, packets := range core.Drops(direction) {
		if packets > 0 {
			fmt.Printf("drop %d %.0f\n", -reason, packets)
		}
	}
}
