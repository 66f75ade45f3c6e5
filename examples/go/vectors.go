package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
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

// runVectors runs each line of a file on a core of its own, and prints what became of it.
func runVectors(ctx context.Context, module *Module, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for line := range strings.Lines(string(text)) {
		answer, err := runVector(ctx, module, strings.Split(strings.TrimSuffix(line, "\n"), " "))
		if err != nil {
			return err
		}
		fmt.Fprintln(out, answer)
	}
	return out.Flush()
}

func runVector(ctx context.Context, module *Module, words []string) (string, error) {
	const now = 1
	if len(words) < wordMappings+4 || (len(words)-wordMappings)%4 != 0 {
		return "", fmt.Errorf("a vector of %d words", len(words))
	}
	direction, ok := map[string]Direction{"outbound": Outbound, "inbound": Inbound}[words[wordDirection]]
	if !ok {
		return "", fmt.Errorf("direction %q: expected outbound or inbound", words[wordDirection])
	}
	packet, err := hex.DecodeString(words[wordPacket])
	if err != nil {
		return "", err
	}
	core, err := module.New(ctx)
	if err != nil {
		return "", err
	}
	defer core.Close()
	if len(packet) > core.PacketRoom() {
		return "", fmt.Errorf("a packet of %d bytes, expected at most %d", len(packet), core.PacketRoom())
	}
	if err := configure(core, words); err != nil {
		return "", err
	}
	merged, err := parseNumber(words[wordMerged])
	if err != nil {
		return "", err
	}
	core.Put(0, packet, merged)
	if _, err := core.Call(direction, 0, 1, now); err != nil {
		return "", err
	}
	if words[wordRefused] != "-1" {
		code, err := parseNumber(words[wordRefused])
		if err != nil {
			return "", err
		}
		for _, message := range core.Messages() {
			if err := core.Refuse(message, int32(code), now); err != nil {
				return "", err
			}
		}
	}
	messages, replies := inHex(core, core.Messages()), inHex(core, core.Replies())
	return fmt.Sprintf("%d %x %s %s", core.Verdict(0), core.Peer(0), messages, replies), nil
}

// configure tells a core what a vector says of its VM.
func configure(core *Core, words []string) error {
	var problems []error
	number := func(i int) uint32 {
		value, err := parseNumber(words[i])
		problems = append(problems, err)
		return value
	}
	problems = append(problems, core.Configure(Config{
		Local:         number(wordLocal),
		Options:       number(wordOptions),
		Key:           number(wordKey),
		TTL:           number(wordTTL),
		DSCP:          number(wordDSCP),
		Encapsulation: number(wordEncapsulation),
		MTU:           number(wordMTU),
	}))
	for i := wordMappings; i < len(words); i += 4 {
		problems = append(problems, core.Map(Mapping{number(i), number(i + 1), number(i + 2), number(i + 3)}))
	}
	return errors.Join(problems...)
}

func parseNumber(word string) (uint32, error) {
	value, err := strconv.ParseUint(word, 10, 32)
	return uint32(value), err
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
