//! Golden packets, one a line: how a host shows that it does what the others do.

use std::fmt::Write;

use crate::core::{Config, Core, Direction, Mapping, Message, Module, Result};

const NOW: f64 = 1.0;

/// Runs each line of a file on a core of its own, and prints what became of it.
pub fn run(module: &Module, path: &str) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
    let text = String::from_utf8_lossy(&bytes);
    for (i, line) in text.split_terminator('\n').enumerate() {
        let answer = run_vector(Core::new(module)?, line)
            .map_err(|error| format!("{path}: line {}: {error}", i + 1))?;
        println!("{answer}");
    }
    Ok(())
}

fn run_vector(mut core: Core, line: &str) -> Result<String> {
    let mut words = line.split(' ').peekable();
    let direction = match next(&mut words)? {
        "outbound" => Direction::Outbound,
        "inbound" => Direction::Inbound,
        other => return Err(format!("{other:?}: expected outbound or inbound").into()),
    };
    let config = Config {
        local: number(&mut words, u32::MAX)?,
        options: number(&mut words, 255)?,
        key: number(&mut words, u32::MAX)?,
        ttl: number(&mut words, 255)?,
        dscp: number(&mut words, 63)?,
        encapsulation: number(&mut words, 1)?,
        mtu: number(&mut words, 65535)?,
    };
    let merged = number(&mut words, u32::MAX)?;
    let refused = match words.next_if_eq(&"-1") {
        Some(_) => -1,
        None => number(&mut words, 255)? as i32,
    };
    let packet = from_hex(next(&mut words)?)?;
    let room = core.packet_room();
    if packet.len() > room {
        let length = packet.len();
        return Err(format!("a packet of {length} bytes: expected at most {room}").into());
    }
    core.configure(&config)?;
    loop {
        core.map(&Mapping {
            overlay: number(&mut words, u32::MAX)?,
            overlay_length: number(&mut words, 32)?,
            underlay: number(&mut words, u32::MAX)?,
            underlay_length: number(&mut words, 32)?,
        })?;
        if words.peek().is_none() {
            break;
        }
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
    Ok(words
        .next()
        .ok_or("too few words: expected 11, and four for each mapping")?)
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>, largest: u32) -> Result<u32> {
    let word = next(words)?;
    let is_number = word.bytes().all(|it| it.is_ascii_digit());
    match word.parse() {
        Ok(number) if is_number && number <= largest => Ok(number),
        _ => Err(format!("{word:?}: expected a whole number from 0 to {largest}").into()),
    }
}

fn from_hex(word: &str) -> Result<Vec<u8>> {
    if word == "-" {
        return Ok(Vec::new());
    }
    let digits: Option<Vec<u8>> = word
        .chars()
        .map(|it| it.to_digit(16).map(|it| it as u8))
        .collect();
    match digits {
        Some(digits) if !digits.is_empty() && digits.len() % 2 == 0 => Ok(digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => Err("the packet: expected pairs of hex digits, or - for an empty one".into()),
    }
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
