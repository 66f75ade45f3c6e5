//! Classic pcap files: https://www.tcpdump.org/manpages/pcap-savefile.5.html

use std::io::{BufRead, ErrorKind, Write};

use crate::core::Result;

const MAGIC_MICROSECONDS: u32 = 0xa1b2c3d4;
const FILE_HEADER_SIZE: usize = 24;
const RECORD_HEADER_SIZE: usize = 16;
const VERSION: [u16; 2] = [2, 4];
const SNAP_LENGTH: u32 = 65535;
/// What libpcap takes for the longest packet (MAXIMUM_SNAPLEN).
const MOST_BYTES: u32 = 262144;

const LINK_ETHERNET: u32 = 1;
const LINK_RAW: u32 = 101;
const LINK_IPV4: u32 = 228;

const ETHERNET_HEADER_SIZE: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// When a packet was captured.
#[derive(Clone, Copy)]
pub struct Time {
    pub seconds: u32,
    pub microseconds: u32,
}

impl Time {
    pub fn milliseconds(self) -> f64 {
        f64::from(self.seconds) * 1000.0 + f64::from(self.microseconds) / 1000.0
    }
}

/// Reads the IPv4 packets of a file.
pub struct Reader<R> {
    input: R,
    is_big_endian: bool,
    link_type: u32,
    packets: usize,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header of a file.
    pub fn new(input: R) -> Result<Self> {
        let mut reader = Self {
            input,
            is_big_endian: false,
            link_type: 0,
            packets: 0,
        };
        let mut header = [0; FILE_HEADER_SIZE];
        reader.fill(&mut header)?;
        reader.is_big_endian = reader.field(&header, 0) != MAGIC_MICROSECONDS;
        if reader.field(&header, 0) != MAGIC_MICROSECONDS {
            return Err("not a pcap file with microseconds".into());
        }
        reader.link_type = reader.field(&header, 20);
        match reader.link_type {
            LINK_ETHERNET | LINK_RAW | LINK_IPV4 => Ok(reader),
            other => Err(format!("link type {other}: expected 1, 101 or 228").into()),
        }
    }

    /// Reads the next IPv4 packet; `None` at the end of the file.
    pub fn read(&mut self) -> Result<Option<(Time, Vec<u8>)>> {
        while !self.input.fill_buf()?.is_empty() {
            self.packets += 1;
            let mut header = [0; RECORD_HEADER_SIZE];
            self.fill(&mut header)?;
            let length = self.field(&header, 8);
            if length > MOST_BYTES {
                let problem = format!("{length} bytes: expected at most {MOST_BYTES}");
                return Err(format!("packet {}: {problem}", self.packets).into());
            }
            let mut packet = vec![0; length as usize];
            self.fill(&mut packet)?;
            if let Some(packet) = self.unwrap(packet) {
                let time = Time {
                    seconds: self.field(&header, 0),
                    microseconds: self.field(&header, 4),
                };
                return Ok(Some((time, packet)));
            }
        }
        Ok(None)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.input
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof if self.packets == 0 => {
                    "the file ends in its header".into()
                }
                ErrorKind::UnexpectedEof => {
                    format!("the file ends in packet {}", self.packets).into()
                }
                _ => error.into(),
            })
    }

    /// Takes an Ethernet header off; `None` if there is no IPv4 packet behind it.
    fn unwrap(&self, mut frame: Vec<u8>) -> Option<Vec<u8>> {
        if self.link_type == LINK_ETHERNET {
            if frame.get(ETHERNET_HEADER_SIZE - 2..ETHERNET_HEADER_SIZE)? != ETHERTYPE_IPV4 {
                return None;
            }
            frame.drain(..ETHERNET_HEADER_SIZE);
        }
        Some(frame)
    }

    fn field(&self, header: &[u8], at: usize) -> u32 {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        if self.is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

/// Writes IP packets (LINKTYPE_RAW).
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Writes the header of a file.
    pub fn new(mut output: W) -> Result<Self> {
        output.write_all(&MAGIC_MICROSECONDS.to_le_bytes())?;
        for number in VERSION {
            output.write_all(&number.to_le_bytes())?;
        }
        // Time zone and accuracy are always 0.
        for number in [0, 0, SNAP_LENGTH, LINK_RAW] {
            output.write_all(&number.to_le_bytes())?;
        }
        Ok(Self { output })
    }

    /// Writes a packet that lies in several pieces.
    pub fn write<'a>(&mut self, time: Time, pieces: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let packet = pieces.collect::<Vec<_>>().concat();
        let length = packet.len() as u32;
        for number in [time.seconds, time.microseconds, length, length] {
            self.output.write_all(&number.to_le_bytes())?;
        }
        Ok(self.output.write_all(&packet)?)
    }

    /// Writes what is still buffered.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.output.flush()?)
    }
}
