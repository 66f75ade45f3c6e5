//! Constants of the module: i32 globals, each read by its name.

#[cfg(not(feature = "wasmtime"))]
use wasmi as runtime;
#[cfg(feature = "wasmtime")]
use wasmtime as runtime;

use runtime::{Instance, Store, Val};

use crate::core::Result;

/// What of them every call needs, read once.
macro_rules! constants {
    ($($field:ident = $name:literal,)*) => {
        pub struct Constants {
            $(pub $field: usize,)*
        }

        impl Constants {
            pub fn read(instance: &Instance, store: &mut Store<()>) -> Result<Self> {
                Ok(Self {
                    $($field: constant(instance, store, $name)?,)*
                })
            }
        }
    };
}

constants! {
    batch_size = "BATCH_SIZE",
    slots = "SLOTS",
    slot_size = "SLOT_SIZE",
    headroom = "HEADROOM",
    descriptors = "DESCRIPTORS",
    descriptor_size = "DESCRIPTOR_SIZE",
    descriptor_address = "DESCRIPTOR_ADDRESS",
    descriptor_length = "DESCRIPTOR_LENGTH",
    descriptor_verdict = "DESCRIPTOR_VERDICT",
    descriptor_peer = "DESCRIPTOR_PEER",
    descriptor_segment = "DESCRIPTOR_SEGMENT",
    descriptor_merged = "DESCRIPTOR_MERGED",
    message_counts = "MESSAGE_COUNTS",
    max_ports = "MAX_PORTS",
    messages_per_port = "MESSAGES_PER_PORT",
    reply_port = "REPLY_PORT",
    message_table = "MESSAGE_TABLE",
    message_size = "MESSAGE_SIZE",
    message_iov = "MESSAGE_IOV",
    message_iov_count = "MESSAGE_IOV_COUNT",
    iov_size = "IOV_SIZE",
    iov_base = "IOV_BASE",
    iov_length = "IOV_LENGTH",
    outbound_counters = "OUTBOUND_COUNTERS",
    inbound_counters = "INBOUND_COUNTERS",
    counters_received = "COUNTERS_RECEIVED",
    counters_forwarded = "COUNTERS_FORWARDED",
    counters_drops = "COUNTERS_DROPS",
    verdicts = "VERDICTS",
}

/// The constant with this name.
pub fn constant(instance: &Instance, store: &mut Store<()>, name: &str) -> Result<usize> {
    let global = instance.get_global(&mut *store, name);
    match global.map(|global| global.get(&mut *store)) {
        Some(Val::I32(value)) => Ok(value as u32 as usize),
        _ => Err(format!("the core has no constant {name}").into()),
    }
}
