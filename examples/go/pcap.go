package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Classic pcap files: https://www.tcpdump.org/manpages/pcap-savefile.5.html
const (
	magicMicroseconds = 0xa1b2c3d4
	fileHeaderSize    = 24
	recordHeaderSize  = 16
	snapLength        = 65535
	// What libpcap takes for the longest packet (MAXIMUM_SNAPLEN).
	mostBytes = 262144

	linkEthernet = 1
	linkRaw      = 101
	linkIPv4     = 228

	ethernetHeaderSize = 14
	etherTypeIPv4      = 0x0800
)

// Time is when a packet was captured.
type Time struct {
	Seconds, Microseconds uint32
}

// Milliseconds are what the core takes for a time.
func (t Time) Milliseconds() float64 {
	return float64(t.Seconds)*1000 + float64(t.Microseconds)/1000
}

// PcapReader reads the IPv4 packets of a file.
type PcapReader struct {
	in       *bufio.Reader
	order    binary.ByteOrder
	linkType uint32
	packets  int
}

// NewPcapReader reads the header of a file.
func NewPcapReader(in io.Reader) (*PcapReader, error) {
	r := &PcapReader{in: bufio.NewReader(in), order: binary.LittleEndian}
	var header [fileHeaderSize]byte
	if _, err := io.ReadFull(r.in, header[:]); err != nil {
		return nil, problemAt("its header", err)
	}
	if r.order.Uint32(header[:]) != magicMicroseconds {
		r.order = binary.BigEndian
	}
	if r.order.Uint32(header[:]) != magicMicroseconds {
		return nil, errors.New("not a pcap file with microseconds")
	}
	r.linkType = r.order.Uint32(header[20:])
	switch r.linkType {
	case linkEthernet, linkRaw, linkIPv4:
		return r, nil
	}
	return nil, fmt.Errorf("link type %d: expected 1, 101 or 228", r.linkType)
}

// Read reads the next IPv4 packet; the error is io.EOF at the end of the file.
func (r *PcapReader) Read() (Time, []byte, error) {
	for {
		r.packets++
		place := fmt.Sprintf("packet %d", r.packets)
		var header [recordHeaderSize]byte
		if _, err := io.ReadFull(r.in, header[:]); err == io.EOF {
			return Time{}, nil, err
		} else if err != nil {
			return Time{}, nil, problemAt(place, err)
		}
		length := r.order.Uint32(header[8:])
		if length > mostBytes {
			return Time{}, nil, fmt.Errorf("%s: %d bytes: expected at most %d", place, length, mostBytes)
		}
		packet := make([]byte, length)
		if _, err := io.ReadFull(r.in, packet); err != nil {
			return Time{}, nil, problemAt(place, err)
		}
		if packet, ok := r.unwrap(packet); ok {
			return Time{r.order.Uint32(header[:]), r.order.Uint32(header[4:])}, packet, nil
		}
	}
}

// problemAt says in which part of a file reading it has failed.
func problemAt(place string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends in %s", place)
	}
	return fmt.Errorf("%s: %w", place, err)
}

// unwrap takes an Ethernet header off; false if there is no IPv4 packet behind it.
func (r *PcapReader) unwrap(frame []byte) ([]byte, bool) {
	if r.linkType != linkEthernet {
		return frame, true
	}
	if len(frame) < ethernetHeaderSize || binary.BigEndian.Uint16(frame[12:]) != etherTypeIPv4 {
		return nil, false
	}
	return frame[ethernetHeaderSize:], true
}

// PcapWriter writes IP packets (LINKTYPE_RAW).
type PcapWriter struct {
	out *bufio.Writer
}

// NewPcapWriter writes the header of a file.
func NewPcapWriter(out io.Writer) *PcapWriter {
	w := &PcapWriter{bufio.NewWriter(out)}
	header := binary.LittleEndian.AppendUint32(nil, magicMicroseconds)
	header = binary.LittleEndian.AppendUint16(header, 2) // version 2.4
	header = binary.LittleEndian.AppendUint16(header, 4)
	header = append(header, make([]byte, 8)...) // time zone and accuracy: always 0
	header = binary.LittleEndian.AppendUint32(header, snapLength)
	header = binary.LittleEndian.AppendUint32(header, linkRaw)
	w.out.Write(header)
	return w
}

// Write writes a packet. What goes wrong is told by Flush.
func (w *PcapWriter) Write(time Time, packet []byte) {
	var header [recordHeaderSize]byte
	binary.LittleEndian.PutUint32(header[0:], time.Seconds)
	binary.LittleEndian.PutUint32(header[4:], time.Microseconds)
	binary.LittleEndian.PutUint32(header[8:], uint32(len(packet)))
	binary.LittleEndian.PutUint32(header[12:], uint32(len(packet)))
	w.out.Write(header[:])
	w.out.Write(packet)
}

// Flush writes what is still buffered, and returns the first error of all writes.
func (w *PcapWriter) Flush() error {
	return w.out.Flush()
}
