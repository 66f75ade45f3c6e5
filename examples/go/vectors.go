package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
)

// Words of a vector: its direction, what configure is told, what is known of merging, with which ICMP
// code what it becomes is refused (-1: it is not), the packet, and then four words for each mapping.
const (
	wordDirection = iota
	wordLocal
	wordOptions
	wordKey
	wordTTL
	wordDSCP
	wordEncapsulation
	wordMTU
	wordMerged
	wordRefused
	wordPacket
	wordMappings
)

// The largest that the numbers of a line may be, and those of a mapping.
var (
	largest = map[int]uint32{
		wordLocal: math.MaxUint32, wordOptions: 255, wordKey: math.MaxUint32, wordTTL: 255, wordDSCP: 63,
		wordEncapsulation: 1, wordMTU: 65535, wordMerged: math.MaxUint32, wordRefused: 255,
	}
	largestOfMapping = [4]uint32{math.MaxUint32, 32, math.MaxUint32, 32}
)

// runVectors runs each line of a file on a core of its own, and prints what became of it.
func runVectors(ctx context.Context, module *Module, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		answer, err := runVector(ctx, module, strings.Split(strings.TrimSuffix(line, "\n"), " "))
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", path, number, err)
		}
		fmt.Fprintln(out, answer)
	}
	return out.Flush()
}

func runVector(ctx context.Context, module *Module, words []string) (string, error) {
	const now = 1
	if len(words) < wordMappings+4 || (len(words)-wordMappings)%4 != 0 {
		return "", fmt.Errorf("%d words: expected %d, and four for each mapping", len(words), wordMappings)
	}
	direction, ok := map[string]Direction{"outbound": Outbound, "inbound": Inbound}[words[wordDirection]]
	if !ok {
		return "", fmt.Errorf("direction %q: expected outbound or inbound", words[wordDirection])
	}
	packet, err := parsePacket(words[wordPacket])
	if err != nil {
		return "", err
	}
	core, err := module.New(ctx)
	if err != nil {
		return "", err
	}
	defer core.Close()
	if len(packet) > core.PacketRoom() {
		return "", fmt.Errorf("a packet of %d bytes: expected at most %d", len(packet), core.PacketRoom())
	}
	if err := configure(core, words); err != nil {
		return "", err
	}
	merged, err := parseNumber(words[wordMerged], largest[wordMerged])
	if err != nil {
		return "", err
	}
	code := int32(-1)
	if words[wordRefused] != "-1" {
		number, err := parseNumber(words[wordRefused], largest[wordRefused])
		if err != nil {
			return "", err
		}
		code = int32(number)
	}
	core.Put(0, packet, merged)
	if _, err := core.Call(direction, 0, 1, now); err != nil {
		return "", err
	}
	if code >= 0 {
		for _, message := range core.Messages() {
			if err := core.Refuse(message, code, now); err != nil {
				return "", err
			}
		}
	}
	messages, replies := inHex(core, core.Messages()), inHex(core, core.Replies())
	return fmt.Sprintf("%d %x %s %s", core.Verdict(0), core.Peer(0), messages, replies), nil
}

// configure tells a core what a vector says of its VM.
func configure(core *Core, words []string) error {
	var problem error
	number := func(i int, largest uint32) uint32 {
		value, err := parseNumber(words[i], largest)
		if problem == nil {
			problem = err
		}
		return value
	}
	config := Config{
		Local:         number(wordLocal, largest[wordLocal]),
		Options:       number(wordOptions, largest[wordOptions]),
		Key:           number(wordKey, largest[wordKey]),
		TTL:           number(wordTTL, largest[wordTTL]),
		DSCP:          number(wordDSCP, largest[wordDSCP]),
		Encapsulation: number(wordEncapsulation, largest[wordEncapsulation]),
		MTU:           number(wordMTU, largest[wordMTU]),
	}
	var mappings []Mapping
	for i := wordMappings; i < len(words); i += 4 {
		var it [4]uint32
		for n, most := range largestOfMapping {
			it[n] = number(i+n, most)
		}
		mappings = append(mappings, Mapping{it[0], it[1], it[2], it[3]})
	}
	if problem != nil {
		return problem
	}
	if err := core.Configure(config); err != nil {
		return err
	}
	for _, mapping := range mappings {
		if err := core.Map(mapping); err != nil {
			return err
		}
	}
	return nil
}

func parseNumber(word string, largest uint32) (uint32, error) {
	value, err := strconv.ParseUint(word, 10, 32)
	if err != nil || value > uint64(largest) {
		return 0, fmt.Errorf("%q: expected a whole number from 0 to %d", word, largest)
	}
	return uint32(value), nil
}

func parsePacket(word string) ([]byte, error) {
	if word == "-" {
		return nil, nil
	}
	packet, err := hex.DecodeString(word)
	if err != nil || len(packet) == 0 {
		return nil, errors.New("the packet: expected pairs of hex digits, or - for an empty one")
	}
	return packet, nil
}

// inHex is the bytes of messages with commas between them, or - if there are none.
func inHex(core *Core, messages []uint32) string {
	if len(messages) == 0 {
		return "-"
	}
	words := make([]string, len(messages))
	for i, message := range messages {
		words[i] = hex.EncodeToString(core.AppendMessage(nil, message))
	}
	return strings.Join(words, ",")
}
