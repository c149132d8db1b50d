//! Sends messages that were stopped to Homer.

use anyhow::Result;

use super::late::Late;
use crate::events;
use crate::hep::{Exporter, Homer};
use crate::serve::sink::{self, Known};
use crate::tap::Packet;

pub struct Sink(Late<Exporter>);

impl Sink {
    pub fn new(homer: &Homer) -> Sink {
        let homer = homer.clone();
        Sink(Late::new(move || Exporter::new(homer.clone())))
    }
}

impl sink::Sink for Sink {
    fn name(&self) -> &'static str {
        "Homer"
    }

    fn take(&mut self, packet: &Packet, _known: &mut Known) -> Result<()> {
        self.0.get()?.send(packet, &events::payload(packet)).map(drop)
    }
}
