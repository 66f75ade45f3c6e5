//! The packet core in a WebAssembly runtime: docs/abi.md in Rust.

use std::error::Error;

#[cfg(not(feature = "wasmtime"))]
use wasmi as runtime;
#[cfg(feature = "wasmtime")]
use wasmtime as runtime;

use runtime::{Engine, Instance, Memory, Store, TypedFunc};

use crate::constants::{Constants, constant};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The ABI that this file is written for: the only number in it that the module has a name for.
const EXPECTED_VERSION: usize = 5;

/// The way that packets go: out of containers, or in from the underlay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Outbound,
    Inbound,
}

/// What `configure` is told. Addresses are numbers: 10.0.0.1 is 0x0a000001.
pub struct Config {
    pub local: u32,
    pub options: u32,
    pub key: u32,
    pub ttl: u32,
    pub dscp: u32,
    pub encapsulation: u32,
    pub mtu: u32,
}

/// An overlay prefix, and the underlay prefix that its VMs have addresses of.
pub struct Mapping {
    pub overlay: u32,
    pub overlay_length: u32,
    pub underlay: u32,
    pub underlay_length: u32,
}

/// A number that names a message of the last call.
pub type Message = usize;

/// The compiled packet core, of which there may be many instances.
pub struct Module {
    engine: Engine,
    module: runtime::Module,
}

impl Module {
    pub fn new(wasm: &[u8]) -> Result<Self> {
        let engine = Engine::default();
        let module = runtime::Module::new(&engine, wasm)?;
        Ok(Self { engine, module })
    }
}

/// One instance of the module. Its state is its memory, so cores do not share anything.
pub struct Core {
    store: Store<()>,
    instance: Instance,
    /// Little-endian, and never grown.
    memory: Memory,
    constants: Constants,
    encapsulate: TypedFunc<(u32, u32, f64), u32>,
    decapsulate: TypedFunc<(u32, u32, f64), u32>,
}

impl Core {
    pub fn new(module: &Module) -> Result<Self> {
        let mut store = Store::new(&module.engine, ());
        let instance = Instance::new(&mut store, &module.module, &[])?;
        let version = constant(&instance, &mut store, "ABI_VERSION")?;
        if version != EXPECTED_VERSION {
            return Err(
                format!("the core has ABI version {version}, expected {EXPECTED_VERSION}").into(),
            );
        }
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or("the core has no memory")?;
        let mut core = Self {
            constants: Constants::read(&instance, &mut store)?,
            encapsulate: instance.get_typed_func(&mut store, "encapsulate")?,
            decapsulate: instance.get_typed_func(&mut store, "decapsulate")?,
            store,
            instance,
            memory,
        };
        core.attach(0)?;
        Ok(core)
    }

    /// A constant that the module exports by this name.
    pub fn constant(&mut self, name: &str) -> Result<usize> {
        constant(&self.instance, &mut self.store, name)
    }

    /// Says what the host's devices can do, in OFFLOAD_ bits.
    pub fn attach(&mut self, offloads: u32) -> Result<()> {
        let attach = self
            .instance
            .get_typed_func::<(f64, u32, u32), ()>(&mut self.store, "attach")?;
        // Base 0: pointers in messages are places in memory.
        Ok(attach.call(&mut self.store, (0.0, offloads, 1))?)
    }

    /// Says what this VM is, and forgets all mappings.
    pub fn configure(&mut self, c: &Config) -> Result<()> {
        let configure = self
            .instance
            .get_typed_func::<(u32, u32, u32, u32, u32, u32, u32), ()>(
                &mut self.store,
                "configure",
            )?;
        let parameters = (
            c.local,
            c.options,
            c.key,
            c.ttl,
            c.dscp,
            c.encapsulation,
            c.mtu,
        );
        Ok(configure.call(&mut self.store, parameters)?)
    }

    pub fn map(&mut self, m: &Mapping) -> Result<()> {
        let add_mapping = self
            .instance
            .get_typed_func::<(u32, u32, u32, u32), i32>(&mut self.store, "addMapping")?;
        let parameters = (m.overlay, m.overlay_length, m.underlay, m.underlay_length);
        if add_mapping.call(&mut self.store, parameters)? < 0 {
            return Err(format!(
                "the mapping /{} to /{} does not fit the core",
                m.overlay_length, m.underlay_length
            )
            .into());
        }
        Ok(())
    }

    /// Most packets that one call handles.
    pub fn batch_size(&self) -> usize {
        self.constants.batch_size
    }

    /// Most bytes that a packet may have.
    pub fn packet_room(&self) -> usize {
        self.constants.slot_size - self.constants.headroom
    }

    /// Puts a packet into slot `index`; panics if it is longer than `packet_room`. With
    /// OFFLOAD_VIRTIO, it begins with the virtio header on the overlay side. Inbound, `merged` is
    /// what is known of merging; 0 is nothing.
    pub fn put(&mut self, index: usize, packet: &[u8], merged: u32) {
        assert!(packet.len() <= self.packet_room());
        let c = &self.constants;
        let at = c.slots + index * c.slot_size + c.headroom;
        let descriptor = c.descriptors + index * c.descriptor_size;
        let fields = [
            (c.descriptor_address, at as u32),
            (c.descriptor_length, packet.len() as u32),
            (c.descriptor_segment, 0),
            (c.descriptor_merged, merged),
        ];
        let memory = self.memory.data_mut(&mut self.store);
        memory[at..at + packet.len()].copy_from_slice(packet);
        for (field, value) in fields {
            memory[descriptor + field..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Handles packets `first` to `count` - 1 at the time `now`, in ms. Returns the first that
    /// there was no room for, or `count`.
    pub fn call(
        &mut self,
        direction: Direction,
        first: usize,
        count: usize,
        now: f64,
    ) -> Result<usize> {
        let function = match direction {
            Direction::Outbound => &self.encapsulate,
            Direction::Inbound => &self.decapsulate,
        };
        let next = function.call(&mut self.store, (first as u32, count as u32, now))?;
        Ok(next as usize)
    }

    /// What became of a packet: 0, or a negative drop reason.
    pub fn verdict(&self, index: usize) -> i32 {
        self.load(self.descriptor(index) + self.constants.descriptor_verdict) as i32
    }

    /// The remote VM of a packet, in network order.
    pub fn peer(&self, index: usize) -> [u8; 4] {
        self.bytes(self.descriptor(index) + self.constants.descriptor_peer)
    }

    /// The messages that the last call made, but for replies.
    pub fn messages(&self) -> Vec<Message> {
        (0..self.constants.max_ports)
            .flat_map(|port| self.messages_of(port))
            .collect()
    }

    /// The ICMP messages to containers that the last call made. They quote packets where these lie,
    /// so they are to be read before slots are filled anew.
    pub fn replies(&self) -> Vec<Message> {
        self.messages_of(self.constants.reply_port).collect()
    }

    fn messages_of(&self, port: usize) -> std::ops::Range<Message> {
        let first = port * self.constants.messages_per_port;
        first..first + self.load(self.constants.message_counts + 4 * port) as usize
    }

    /// The pieces of a message, in order, where they lie.
    pub fn pieces(&self, message: Message) -> impl Iterator<Item = &[u8]> {
        let c = &self.constants;
        let record = c.message_table + message * c.message_size;
        // Pointers and lengths are u64; as places in memory they fit the low half.
        let iov = self.load(record + c.message_iov) as usize;
        let count = self.load(record + c.message_iov_count) as usize;
        (0..count).map(move |i| {
            let at = iov + i * c.iov_size;
            let base = self.load(at + c.iov_base) as usize;
            let length = self.load(at + c.iov_length) as usize;
            &self.memory.data(&self.store)[base..base + length]
        })
    }

    /// Says that a message could not be written; `code` is the ICMP code that tells why, or -1.
    pub fn refuse(&mut self, message: Message, code: i32, now: f64) -> Result<()> {
        let refuse = self
            .instance
            .get_typed_func::<(u32, i32, f64), ()>(&mut self.store, "refuse")?;
        Ok(refuse.call(&mut self.store, (message as u32, code, now))?)
    }

    /// Packets of a direction: those that were forwarded, and all drops.
    pub fn received(&self, direction: Direction) -> f64 {
        self.counter(direction, self.constants.counters_received)
    }

    pub fn forwarded(&self, direction: Direction) -> f64 {
        self.counter(direction, self.constants.counters_forwarded)
    }

    /// Packets by reason: number r are those with verdict -r.
    pub fn drops(&self, direction: Direction) -> Vec<f64> {
        (0..self.constants.verdicts)
            .map(|r| self.counter(direction, self.constants.counters_drops + 8 * r))
            .collect()
    }

    fn counter(&self, direction: Direction, field: usize) -> f64 {
        let counters = match direction {
            Direction::Outbound => self.constants.outbound_counters,
            Direction::Inbound => self.constants.inbound_counters,
        };
        f64::from_le_bytes(self.bytes(counters + field))
    }

    fn descriptor(&self, index: usize) -> usize {
        self.constants.descriptors + index * self.constants.descriptor_size
    }

    fn load(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.memory.data(&self.store)[at..at + N]);
        bytes
    }
}
