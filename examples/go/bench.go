package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	// Calls before the first round, so that caches are warm.
	warmUp = time.Second
	rounds = 50
	// What a round takes at least, and calls between two looks at the clock.
	roundTime  = 20 * time.Millisecond
	roundCalls = 16

	here           = 0xc0a81020 // 192.168.16.32
	there          = 0xc0a81021 // 192.168.16.33
	container      = 0x0a10205b // 10.16.32.91
	otherContainer = 0x0a102107 // 10.16.33.7

	tcp = 6
	udp = 17
	gre = 47

	// Bytes: a small packet; the headers of IPv4 and TCP; outer IPv4 and GRE.
	smallLength   = 64
	headersLength = 40
	outerLength   = 24
	// Super-packets of so many segments with so many bytes of payload, so many of them a call.
	segments     = 45
	segmentSize  = 1424
	superPackets = 8
)

// runBench prints how long the core takes for packets that it forwards, in ns: the least of many
// short rounds, so that what else runs here shows least.
func runBench(ctx context.Context, module *Module) error {
	for _, c := range []struct {
		name      string
		direction Direction
		prepare   func(*Core) (int, error)
	}{
		{"encapsulate-64", Outbound, prepareEncapsulate},
		{"decapsulate-64", Inbound, prepareDecapsulate},
		{"cut-64k", Outbound, prepareCut},
	} {
		core, err := meshCore(ctx, module, "192.168.16.32", "10.0.0.0/8", "192.168.0.0/16")
		if err != nil {
			return err
		}
		count, err := c.prepare(core)
		if err != nil {
			return err
		}
		ns, err := measure(core, c.direction, count)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Printf("%s %.1f\n", c.name, ns)
		if err := core.Close(); err != nil {
			return err
		}
	}
	return nil
}

// measure returns the least ns that each of the count packets in the slots takes in any round.
func measure(core *Core, direction Direction, count int) (float64, error) {
	least, err := measureRound(core, direction, count, warmUp)
	for i := 0; err == nil && i < rounds; i++ {
		var ns float64
		ns, err = measureRound(core, direction, count, roundTime)
		least = min(least, ns)
	}
	if err != nil {
		return 0, err
	}
	if core.Forwarded(direction) != core.Received(direction) {
		return 0, fmt.Errorf("packets were dropped")
	}
	return least, nil
}

// measureRound returns the ns that each of the count packets takes in one round, of that time or longer.
func measureRound(core *Core, direction Direction, count int, atLeast time.Duration) (float64, error) {
	start, packets := time.Now(), 0
	for time.Since(start) < atLeast {
		for range roundCalls {
			handled, err := core.Call(direction, 0, count, 1)
			if err != nil {
				return 0, err
			}
			if handled != count {
				return 0, fmt.Errorf("a call had no room for %d packets", count)
			}
		}
		packets += roundCalls * count
	}
	return float64(time.Since(start).Nanoseconds()) / float64(packets), nil
}

func prepareEncapsulate(core *Core) (int, error) {
	for i := range core.BatchSize() {
		core.Put(i, ipv4Packet(container, otherContainer, udp, smallLength), 0)
	}
	return core.BatchSize(), nil
}

func prepareDecapsulate(core *Core) (int, error) {
	packet := ipv4Packet(there, here, gre, outerLength+smallLength)
	binary.BigEndian.PutUint32(packet[20:], 0x0800) // the GRE header: no options, IPv4
	copy(packet[outerLength:], ipv4Packet(otherContainer, container, udp, smallLength))
	for i := range core.BatchSize() {
		core.Put(i, packet, 0)
	}
	return core.BatchSize(), nil
}

func prepareCut(core *Core) (int, error) {
	constants := make(map[string]uint32)
	for _, name := range []string{
		"OFFLOAD_VIRTIO", "VIRTIO_SIZE", "VIRTIO_FLAGS", "VIRTIO_GSO_TYPE", "VIRTIO_HEADER_LENGTH",
		"VIRTIO_GSO_SIZE", "VIRTIO_CHECKSUM_START", "VIRTIO_CHECKSUM_OFFSET",
	} {
		value, err := core.Constant(name)
		if err != nil {
			return 0, err
		}
		constants[name] = value
	}
	virtio := make([]byte, constants["VIRTIO_SIZE"])
	virtio[constants["VIRTIO_FLAGS"]] = 1    // VIRTIO_NET_HDR_F_NEEDS_CSUM
	virtio[constants["VIRTIO_GSO_TYPE"]] = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	binary.LittleEndian.PutUint16(virtio[constants["VIRTIO_HEADER_LENGTH"]:], headersLength)
	binary.LittleEndian.PutUint16(virtio[constants["VIRTIO_GSO_SIZE"]:], segmentSize)
	binary.LittleEndian.PutUint16(virtio[constants["VIRTIO_CHECKSUM_START"]:], 20)
	binary.LittleEndian.PutUint16(virtio[constants["VIRTIO_CHECKSUM_OFFSET"]:], 16)
	packet := ipv4Packet(container, otherContainer, tcp, headersLength+segments*segmentSize)
	packet[20+12] = 0x50 // a TCP header of 5 words
	for i := range superPackets {
		core.Put(i, append(virtio[:len(virtio):len(virtio)], packet...), 0)
	}
	return superPackets, core.Attach(constants["OFFLOAD_VIRTIO"])
}

// ipv4Packet makes a packet without options, with zeros behind its header.
func ipv4Packet(source, destination uint32, protocol byte, length int) []byte {
	packet := make([]byte, length)
	packet[0] = 0x45
	binary.BigEndian.PutUint16(packet[2:], uint16(length))
	packet[8] = 64
	packet[9] = protocol
	binary.BigEndian.PutUint32(packet[12:], source)
	binary.BigEndian.PutUint32(packet[16:], destination)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(packet[10:], ^uint16(sum+sum>>16))
	return packet
}
