//! A host of Inlay's packet core, in Rust.
//!
//!     inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
//!     inlay-host CORE.wasm vectors IN.txt
//!     inlay-host CORE.wasm bench

mod bench;
mod constants;
mod core;
mod pcap;
mod vectors;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::net::Ipv4Addr;
use std::process::ExitCode;

use crate::core::{Config, Core, Direction, Mapping, Module, Result};
use crate::pcap::{Reader, Time, Writer};

const USAGE: &str =
    "usage: inlay-host CORE.wasm encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
       inlay-host CORE.wasm vectors IN.txt
       inlay-host CORE.wasm bench";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inlay-host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        [
            wasm,
            mode @ ("encapsulate" | "decapsulate"),
            local,
            overlay,
            underlay,
            input,
            output,
        ] => {
            let core = mesh_core(&load(wasm)?, local, overlay, underlay)?;
            let direction = if *mode == "encapsulate" {
                Direction::Outbound
            } else {
                Direction::Inbound
            };
            run_file(core, direction, input, output)
        }
        [wasm, "vectors", path] => vectors::run(&load(wasm)?, path),
        [wasm, "bench"] => bench::run(&load(wasm)?),
        _ => Err(USAGE.into()),
    }
}

fn load(path: &str) -> Result<Module> {
    let wasm = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    Module::new(&wasm)
}

/// A core that is the VM `local` of a mesh.
fn mesh_core(module: &Module, local: &str, overlay: &str, underlay: &str) -> Result<Core> {
    let mut core = Core::new(module)?;
    let encapsulation = core.constant("ENCAPSULATION_GRE")? as u32;
    core.configure(&Config {
        local: parse_address(local)?,
        options: 0,
        key: 0,
        ttl: 64,
        dscp: 0,
        encapsulation,
        mtu: 1476, // of an underlay with 1,500
    })?;
    let (overlay, overlay_length) = parse_prefix(overlay)?;
    let (underlay, underlay_length) = parse_prefix(underlay)?;
    core.map(&Mapping {
        overlay,
        overlay_length,
        underlay,
        underlay_length,
    })?;
    Ok(core)
}

fn parse_address(text: &str) -> Result<u32> {
    let address: Ipv4Addr = text
        .parse()
        .map_err(|_| format!("address {text:?}: expected one such as 192.168.16.32"))?;
    Ok(address.into())
}

fn parse_prefix(text: &str) -> Result<(u32, u32)> {
    let (address, length) = text
        .split_once('/')
        .ok_or_else(|| format!("prefix {text:?}: expected one such as 10.0.0.0/8"))?;
    Ok((parse_address(address)?, length.parse()?))
}

/// The output has another name until it is whole: an error leaves no half of it behind, and nothing
/// that was there is lost.
fn run_file(mut core: Core, direction: Direction, input: &str, output: &str) -> Result<()> {
    // A device or a pipe has to be written to itself.
    let is_other = std::fs::metadata(output).is_ok_and(|it| !it.is_file());
    let part = match is_other {
        true => output.to_string(),
        false => format!("{output}.{}.part", std::process::id()),
    };
    let result = handle_file(&mut core, direction, input, &part).and_then(|skipped| {
        if !is_other {
            std::fs::rename(&part, output).map_err(|error| format!("{output}: {error}"))?;
        }
        Ok(skipped)
    });
    if result.is_err() && !is_other {
        let _ = std::fs::remove_file(&part); // It may not be there.
    }
    let skipped = result?;
    print_counters(&core, direction);
    if skipped > 0 {
        println!("skipped {skipped}");
    }
    Ok(())
}

/// Handles a file in batches. Returns how many packets were left out, since they are longer than a
/// slot.
fn handle_file(core: &mut Core, direction: Direction, input: &str, output: &str) -> Result<usize> {
    let open = File::open(input).map_err(|error| format!("{input}: {error}"))?;
    let mut reader =
        Reader::new(BufReader::new(open)).map_err(|error| format!("{input}: {error}"))?;
    let created = File::create(output).map_err(|error| format!("{output}: {error}"))?;
    let mut writer = Writer::new(BufWriter::new(created))?;
    let mut first = None;
    let (mut count, mut skipped) = (0, 0);
    while let Some((time, packet)) = reader.read().map_err(|error| format!("{input}: {error}"))? {
        if packet.len() > core.packet_room() {
            skipped += 1;
            continue;
        }
        // What a capture shows may have been merged, or not: 0 is that the host does not know.
        core.put(count, &packet, 0);
        count += 1;
        let batch_time = *first.get_or_insert(time);
        if count == core.batch_size() {
            handle(core, direction, count, batch_time, &mut writer)?;
            (first, count) = (None, 0);
        }
    }
    if let Some(time) = first {
        handle(core, direction, count, time, &mut writer)?;
    }
    writer.finish()?;
    Ok(skipped)
}

/// Handles the packets in the slots 0 to `count` - 1, which came together.
fn handle<W: std::io::Write>(
    core: &mut Core,
    direction: Direction,
    count: usize,
    time: Time,
    writer: &mut Writer<W>,
) -> Result<()> {
    let mut first = 0;
    // Where there is no room for more messages the core stops. They are written then, and it goes on.
    while first < count {
        first = core.call(direction, first, count, time.milliseconds())?;
        for message in core.messages().into_iter().chain(core.replies()) {
            writer.write(time, core.pieces(message))?;
        }
    }
    Ok(())
}

fn print_counters(core: &Core, direction: Direction) {
    println!("received {}", core.received(direction));
    println!("forwarded {}", core.forwarded(direction));
    for (reason, packets) in core.drops(direction).iter().enumerate() {
        if *packets > 0.0 {
            println!("drop -{reason} {packets}");
        }
    }
}
