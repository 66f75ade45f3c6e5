package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// expectedVersion is the ABI that this file is written for: the only number in it that the module has a name for.
const expectedVersion = 5

// Direction is the way that packets go: out of containers, or in from the underlay.
type Direction int

const (
	Outbound Direction = iota
	Inbound
)

// Module is the compiled packet core, of which there may be many instances.
type Module struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
}

// Compile compiles core.wasm.
func Compile(ctx context.Context, wasm []byte) (*Module, error) {
	runtime := wazero.NewRuntime(ctx)
	compiled, err := runtime.CompileModule(ctx, wasm)
	if err != nil {
		return nil, fmt.Errorf("the core: %w", err)
	}
	return &Module{runtime, compiled}, nil
}

// Config is what configure is told. Addresses are numbers: 10.0.0.1 is 0x0a000001.
type Config struct {
	Local, Options, Key, TTL, DSCP, Encapsulation, MTU uint32
}

// Mapping is an overlay prefix, and the underlay prefix that its VMs have addresses of.
type Mapping struct {
	Overlay, OverlayLength, Underlay, UnderlayLength uint32
}

// Core is one instance of the module. Its state is its memory, so cores do not share anything. One
// goroutine at a time uses it.
type Core struct {
	ctx    context.Context
	module api.Module
	// Linear memory, little-endian. It never grows, so this view stays good.
	memory []byte
	calls  [2]api.Function
	// Constants of the module, by their names there.
	batchSize, slots, slotSize, headroom                                   uint32
	descriptors, descriptorSize                                            uint32
	descriptorAddress, descriptorLength, descriptorVerdict, descriptorPeer uint32
	descriptorSegment, descriptorMerged                                    uint32
	messageCounts, maxPorts, messagesPerPort, replyPort                    uint32
	messageTable, messageSize, messageIov, messageIovCount                 uint32
	iovSize, iovBase, iovLength                                            uint32
	counters                                                               [2]uint32
	countersReceived, countersForwarded, countersDrops, verdicts           uint32
}

// New makes a core.
func (m *Module) New(ctx context.Context) (*Core, error) {
	// Without a name there may be several instances.
	module, err := m.runtime.InstantiateModule(ctx, m.compiled, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		return nil, fmt.Errorf("the core: %w", err)
	}
	c := &Core{ctx: ctx, module: module}
	version, err := c.Constant("ABI_VERSION")
	if err != nil {
		return nil, err
	}
	if version != expectedVersion {
		return nil, fmt.Errorf("the core has ABI version %d, expected %d", version, expectedVersion)
	}
	if err := c.readConstants(); err != nil {
		return nil, err
	}
	c.memory, _ = module.Memory().Read(0, module.Memory().Size())
	c.calls = [2]api.Function{module.ExportedFunction("encapsulate"), module.ExportedFunction("decapsulate")}
	return c, c.Attach(0)
}

// Close frees the core's memory.
func (c *Core) Close() error {
	return c.module.Close(c.ctx)
}

// Constant reads a constant that the module exports by this name.
func (c *Core) Constant(name string) (uint32, error) {
	global := c.module.ExportedGlobal(name)
	if global == nil {
		return 0, fmt.Errorf("the core has no constant %s", name)
	}
	return api.DecodeU32(global.Get()), nil
}

func (c *Core) readConstants() error {
	for name, to := range map[string]*uint32{
		"BATCH_SIZE":         &c.batchSize,
		"SLOTS":              &c.slots,
		"SLOT_SIZE":          &c.slotSize,
		"HEADROOM":           &c.headroom,
		"DESCRIPTORS":        &c.descriptors,
		"DESCRIPTOR_SIZE":    &c.descriptorSize,
		"DESCRIPTOR_ADDRESS": &c.descriptorAddress,
		"DESCRIPTOR_LENGTH":  &c.descriptorLength,
		"DESCRIPTOR_VERDICT": &c.descriptorVerdict,
		"DESCRIPTOR_PEER":    &c.descriptorPeer,
		"DESCRIPTOR_SEGMENT": &c.descriptorSegment,
		"DESCRIPTOR_MERGED":  &c.descriptorMerged,
		"MESSAGE_COUNTS":     &c.messageCounts,
		"MAX_PORTS":          &c.maxPorts,
		"MESSAGES_PER_PORT":  &c.messagesPerPort,
		"REPLY_PORT":         &c.replyPort,
		"MESSAGE_TABLE":      &c.messageTable,
		"MESSAGE_SIZE":       &c.messageSize,
		"MESSAGE_IOV":        &c.messageIov,
		"MESSAGE_IOV_COUNT":  &c.messageIovCount,
		"IOV_SIZE":           &c.iovSize,
		"IOV_BASE":           &c.iovBase,
		"IOV_LENGTH":         &c.iovLength,
		"OUTBOUND_COUNTERS":  &c.counters[Outbound],
		"INBOUND_COUNTERS":   &c.counters[Inbound],
		"COUNTERS_RECEIVED":  &c.countersReceived,
		"COUNTERS_FORWARDED": &c.countersForwarded,
		"COUNTERS_DROPS":     &c.countersDrops,
		"VERDICTS":           &c.verdicts,
	} {
		value, err := c.Constant(name)
		if err != nil {
			return err
		}
		*to = value
	}
	return nil
}

func (c *Core) call(function string, parameters ...uint64) (int32, error) {
	results, err := c.module.ExportedFunction(function).Call(c.ctx, parameters...)
	if err != nil || len(results) == 0 {
		return 0, err
	}
	return api.DecodeI32(results[0]), nil
}

// Attach says what the host's devices can do, in OFFLOAD_ bits.
func (c *Core) Attach(offloads uint32) error {
	// Base 0: pointers in messages are places in memory.
	_, err := c.call("attach", api.EncodeF64(0), uint64(offloads), 1)
	return err
}

// Configure says what this VM is, and forgets all mappings.
func (c *Core) Configure(g Config) error {
	_, err := c.call("configure", uint64(g.Local), uint64(g.Options), uint64(g.Key), uint64(g.TTL), uint64(g.DSCP),
		uint64(g.Encapsulation), uint64(g.MTU))
	return err
}

// Map adds a mapping.
func (c *Core) Map(m Mapping) error {
	count, err := c.call("addMapping", uint64(m.Overlay), uint64(m.OverlayLength),
		uint64(m.Underlay), uint64(m.UnderlayLength))
	if err == nil && count < 0 {
		return fmt.Errorf("the mapping /%d to /%d does not fit the core", m.OverlayLength, m.UnderlayLength)
	}
	return err
}

// BatchSize is the most packets that one call handles.
func (c *Core) BatchSize() int { return int(c.batchSize) }

// PacketRoom is the most bytes that a packet may have.
func (c *Core) PacketRoom() int { return int(c.slotSize - c.headroom) }

// Put puts a packet of at most PacketRoom bytes into slot i. With OFFLOAD_VIRTIO, it begins with the
// virtio header on the overlay side. Inbound, merged is what is known of merging; 0 is nothing.
func (c *Core) Put(i int, packet []byte, merged uint32) {
	at := c.slots + uint32(i)*c.slotSize + c.headroom
	copy(c.memory[at:], packet)
	d := c.descriptor(i)
	c.store(d+c.descriptorAddress, at)
	c.store(d+c.descriptorLength, uint32(len(packet)))
	c.store(d+c.descriptorSegment, 0)
	c.store(d+c.descriptorMerged, merged)
}

// Call handles packets first to count-1 at the time now, in ms. It returns the first that there was no
// room for, or count.
func (c *Core) Call(direction Direction, first, count int, now float64) (int, error) {
	stack := [3]uint64{api.EncodeI32(int32(first)), api.EncodeI32(int32(count)), api.EncodeF64(now)}
	err := c.calls[direction].CallWithStack(c.ctx, stack[:])
	return int(api.DecodeI32(stack[0])), err
}

// Verdict is what became of packet i: 0, or a negative drop reason.
func (c *Core) Verdict(i int) int32 { return int32(c.load(c.descriptor(i) + c.descriptorVerdict)) }

// Peer is the remote VM of packet i, in network order.
func (c *Core) Peer(i int) []byte {
	at := c.descriptor(i) + c.descriptorPeer
	return c.memory[at : at+4]
}

// Messages are those that the last call made, but for replies.
func (c *Core) Messages() []uint32 {
	var messages []uint32
	for port := range c.maxPorts {
		messages = append(messages, c.messagesOf(port)...)
	}
	return messages
}

// Replies are the ICMP messages to containers that the last call made. They quote packets where these
// lie, so they are to be read before slots are filled anew.
func (c *Core) Replies() []uint32 { return c.messagesOf(c.replyPort) }

func (c *Core) messagesOf(port uint32) []uint32 {
	messages := make([]uint32, c.load(c.messageCounts+4*port))
	for i := range messages {
		messages[i] = port*c.messagesPerPort + uint32(i)
	}
	return messages
}

// AppendMessage appends the bytes of a message, gathered from where they lie.
func (c *Core) AppendMessage(to []byte, message uint32) []byte {
	record := c.messageTable + message*c.messageSize
	// Pointers and lengths are u64; as places in memory they fit the low half.
	iov, count := c.load(record+c.messageIov), c.load(record+c.messageIovCount)
	for range count {
		base, length := c.load(iov+c.iovBase), c.load(iov+c.iovLength)
		to = append(to, c.memory[base:base+length]...)
		iov += c.iovSize
	}
	return to
}

// Refuse says that a message could not be written; code is the ICMP code that tells why, or -1.
func (c *Core) Refuse(message uint32, code int32, now float64) error {
	_, err := c.call("refuse", uint64(message), api.EncodeI32(code), api.EncodeF64(now))
	return err
}

// Received, Forwarded and Drops are packets of a direction: received = forwarded + all drops.
func (c *Core) Received(d Direction) float64 { return c.loadFloat(c.counters[d] + c.countersReceived) }

func (c *Core) Forwarded(d Direction) float64 {
	return c.loadFloat(c.counters[d] + c.countersForwarded)
}

// Drops are by reason: number r has those with verdict -r.
func (c *Core) Drops(d Direction) []float64 {
	drops := make([]float64, c.verdicts)
	for r := range drops {
		drops[r] = c.loadFloat(c.counters[d] + c.countersDrops + 8*uint32(r))
	}
	return drops
}

func (c *Core) descriptor(i int) uint32 { return c.descriptors + uint32(i)*c.descriptorSize }

func (c *Core) load(at uint32) uint32 { return binary.LittleEndian.Uint32(c.memory[at:]) }

func (c *Core) store(at, value uint32) { binary.LittleEndian.PutUint32(c.memory[at:], value) }

func (c *Core) loadFloat(at uint32) float64 {
	return math.Float64frombits(binary.LittleEndian.Uint64(c.memory[at:]))
}
