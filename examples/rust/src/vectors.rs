//! Golden packets, one a line: how a host shows that it does what the others do.

use std::fmt::Write;

use crate::core::{Config, Core, Direction, Mapping, Message, Module, Result};

const NOW: f64 = 1.0;

/// Runs each line of a file on a core of its own, and prints what became of it.
pub fn run(module: &Module, path: &str) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    for line in text.lines() {
        println!("{}", run_vector(Core::new(module)?, line)?);
    }
    Ok(())
}

fn run_vector(mut core: Core, line: &str) -> Result<String> {
    let mut words = line.split(' ');
    let direction = match next(&mut words)? {
        "outbound" => Direction::Outbound,
        "inbound" => Direction::Inbound,
        other => return Err(format!("{other:?}: expected outbound or inbound").into()),
    };
    core.configure(&Config {
        local: next(&mut words)?.parse()?,
        options: next(&mut words)?.parse()?,
        key: next(&mut words)?.parse()?,
        ttl: next(&mut words)?.parse()?,
        dscp: next(&mut words)?.parse()?,
        encapsulation: next(&mut words)?.parse()?,
        mtu: next(&mut words)?.parse()?,
    })?;
    let merged = next(&mut words)?.parse()?;
    let refused: i32 = next(&mut words)?.parse()?;
    let packet = from_hex(next(&mut words)?)?;
    if packet.len() > core.packet_room() {
        return Err(format!("a packet of {} bytes does not fit a slot", packet.len()).into());
    }
    while let Some(overlay) = words.next() {
        core.map(&Mapping {
            overlay: overlay.parse()?,
            overlay_length: next(&mut words)?.parse()?,
            underlay: next(&mut words)?.parse()?,
            underlay_length: next(&mut words)?.parse()?,
        })?;
    }
    core.put(0, &packet, merged);
    core.call(direction, 0, 1, NOW)?;
    if refused >= 0 {
        for message in core.messages() {
            core.refuse(message, refused, NOW)?;
        }
    }
    Ok(format!(
        "{} {} {} {}",
        core.verdict(0),
        to_hex(&core.peer(0)),
        list(&core, &core.messages()),
        list(&core, &core.replies())
    ))
}

fn next<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<&'a str> {
    Ok(words.next().ok_or("a vector has too few words")?)
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits = |at: usize| text.get(at..at + 2).ok_or("an odd number of hex digits");
    (0..text.len())
        .step_by(2)
        .map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?))
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // A String takes all.
        hex
    })
}

/// The bytes of messages with commas between them, or - if there are none.
fn list(core: &Core, messages: &[Message]) -> String {
    let words: Vec<String> = messages
        .iter()
        .map(|&message| core.pieces(message).map(to_hex).collect())
        .collect();
    if words.is_empty() {
        "-".to_string()
    } else {
        words.join(",")
    }
}
