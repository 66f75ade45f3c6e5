//! How long the core takes for packets that it forwards: the least of many short rounds, so that
//! what else runs here shows least.

use std::time::{Duration, Instant};

use crate::core::{Core, Direction, Module, Result};
use crate::mesh_core;

/// Calls before the first round, so that caches are warm.
const WARM_UP: Duration = Duration::from_secs(1);
const ROUNDS: usize = 50;
/// What a round takes at least, and calls between two looks at the clock.
const ROUND: Duration = Duration::from_millis(20);
const CALLS: usize = 16;

const HERE: [u8; 4] = [192, 168, 16, 32];
const THERE: [u8; 4] = [192, 168, 16, 33];
const CONTAINER: [u8; 4] = [10, 16, 32, 91];
const OTHER_CONTAINER: [u8; 4] = [10, 16, 33, 7];

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;

/// Bytes of a small packet, and of the headers of IPv4 and of TCP.
const SMALL: usize = 64;
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
/// Super-packets of so many segments with so many bytes of payload, so many of them a call.
const SEGMENTS: usize = 45;
const SEGMENT: u16 = 1424;
const SUPER_PACKETS: usize = 8;

type Prepare = fn(&mut Core) -> Result<usize>;

/// Prints ns per packet.
pub fn run(module: &Module) -> Result<()> {
    let cases: [(&str, Direction, Prepare); 3] = [
        ("encapsulate-64", Direction::Outbound, prepare_encapsulate),
        ("decapsulate-64", Direction::Inbound, prepare_decapsulate),
        ("cut-64k", Direction::Outbound, prepare_cut),
    ];
    for (name, direction, prepare) in cases {
        let mut core = mesh_core(module, "192.168.16.32", "10.0.0.0/8", "192.168.0.0/16")?;
        let count = prepare(&mut core)?;
        measure(&mut core, direction, count, WARM_UP)?;
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            least = least.min(measure(&mut core, direction, count, ROUND)?);
        }
        if core.forwarded(direction) != core.received(direction) {
            return Err(format!("{name}: packets were dropped").into());
        }
        println!("{name} {least:.1}");
    }
    Ok(())
}

/// A round of `least` or longer: the ns that each of the `count` packets in the slots takes.
fn measure(core: &mut Core, direction: Direction, count: usize, least: Duration) -> Result<f64> {
    let start = Instant::now();
    let mut packets = 0;
    while start.elapsed() < least {
        for _ in 0..CALLS {
            if core.call(direction, 0, count, 1.0)? != count {
                return Err(format!("a call had no room for {count} packets").into());
            }
        }
        packets += CALLS * count;
    }
    Ok(start.elapsed().as_nanos() as f64 / packets as f64)
}

fn prepare_encapsulate(core: &mut Core) -> Result<usize> {
    let packet = ipv4_packet(CONTAINER, OTHER_CONTAINER, UDP, &[0; SMALL - IPV4_HEADER]);
    for i in 0..core.batch_size() {
        core.put(i, &packet, 0);
    }
    Ok(core.batch_size())
}

fn prepare_decapsulate(core: &mut Core) -> Result<usize> {
    let inner = ipv4_packet(OTHER_CONTAINER, CONTAINER, UDP, &[0; SMALL - IPV4_HEADER]);
    let gre = [&[0, 0, 8, 0], &inner[..]].concat(); // no options, IPv4
    let packet = ipv4_packet(THERE, HERE, GRE, &gre);
    for i in 0..core.batch_size() {
        core.put(i, &packet, 0);
    }
    Ok(core.batch_size())
}

fn prepare_cut(core: &mut Core) -> Result<usize> {
    let offloads = core.constant("OFFLOAD_VIRTIO")?;
    core.attach(offloads as u32)?;
    let mut virtio = vec![0; core.constant("VIRTIO_SIZE")?];
    virtio[core.constant("VIRTIO_FLAGS")?] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
    virtio[core.constant("VIRTIO_GSO_TYPE")?] = 1; // VIRTIO_NET_HDR_GSO_TCPV4
    for (name, value) in [
        ("VIRTIO_HEADER_LENGTH", (IPV4_HEADER + TCP_HEADER) as u16),
        ("VIRTIO_GSO_SIZE", SEGMENT),
        ("VIRTIO_CHECKSUM_START", IPV4_HEADER as u16),
        ("VIRTIO_CHECKSUM_OFFSET", 16),
    ] {
        virtio[core.constant(name)?..][..2].copy_from_slice(&value.to_le_bytes());
    }
    let mut tcp = vec![0; TCP_HEADER + SEGMENTS * usize::from(SEGMENT)];
    tcp[12] = 0x50; // a header of 5 words
    let packet = ipv4_packet(CONTAINER, OTHER_CONTAINER, TCP, &tcp);
    for i in 0..SUPER_PACKETS {
        core.put(i, &[&virtio[..], &packet].concat(), 0);
    }
    Ok(SUPER_PACKETS)
}

/// A packet without options.
fn ipv4_packet(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (IPV4_HEADER + payload.len()) as u16;
    let mut header = [0; IPV4_HEADER];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&destination);
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded + (folded >> 16)) as u16);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&header[..], payload].concat()
}
