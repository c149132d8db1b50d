//! What the PBX sends, through the program that sees it leave; and the handshakes that are made of it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions};
use sipguard_common::Reason;
use sipguard_common::abi::{
    ConnectionOwner, FLOW_ENDED, Settings, Span, UNFINISHED_ENTRIES, Unfinished, names,
};
use sipguard_core::address::mapped;
use sipguard_core::clock::Clock;
use sipguard_core::kernel;
use sipguard_core::maps::Plain;

use super::{Program, Run, XDP_PASS, flow_key};
use crate::packet::{ACK, PBX_NEXT, PSH, Peer, SYN};

impl Program {
    /// Shows the program what the PBX sends.
    pub fn leave(&mut self, frame: &[u8]) -> Result<()> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        self.loaded.second_eye()?.test_run(options).context("running the program that sees what leaves")?;
        Ok(())
    }

    /// Lets a handshake come in, after which the first byte of payload has sequence number `first`.
    pub fn connect(&mut self, peer: &Peer, first: u32) -> Result<()> {
        if self.flow(peer)?.is_some() {
            // Here all connections have the same first numbers, which no PBX gives out twice; so the one before has ended.
            self.change_flow(peer, |flow| flow.ended = FLOW_ENDED)?;
        }
        let syn = self.run(&peer.tcp(SYN, first.wrapping_sub(1), b""))?;
        self.leave(&peer.answer(first))?;
        let ack = self.run(&peer.tcp(ACK, first, b""))?;
        for run in [syn, ack] {
            if run.reason != Reason::TcpControl || run.action != XDP_PASS {
                bail!("the handshake did not pass: {run:?}");
            }
        }
        Ok(())
    }

    /// Lets the PBX dial a peer whose first byte has sequence number `first`, and say something: how the peer's SYN-ACK was counted.
    pub fn dial(&mut self, peer: &Peer, first: u32, says: &[u8]) -> Result<Run> {
        self.leave(&peer.back(SYN, PBX_NEXT.wrapping_sub(1), 0, b""))?;
        let answer = self.run(&peer.tcp(SYN | ACK, first.wrapping_sub(1), b""))?;
        self.leave(&peer.back(ACK, PBX_NEXT, first, b""))?;
        if !says.is_empty() {
            self.leave(&peer.back(ACK | PSH, PBX_NEXT, first, says))?;
        }
        Ok(answer)
    }

    /// Counts a connection of a peer as open: for the trunk, or with index 0 for the source.
    pub fn count_open(&mut self, peer: &Peer, trunk: u32) -> Result<()> {
        let settings: Array<_, Plain<Settings>> = self.map(names::SETTINGS)?;
        let keys = settings.get(&0, 0)?.0.hash_keys;
        let remote = if trunk == 0 { bytemuck::cast(mapped(peer.remote.ip())) } else { [0; 4] };
        let owner = ConnectionOwner::new(remote, trunk, kernel::netns()?, &keys);
        let mut map: Array<_, u64> = self.map(names::OPEN)?;
        Ok(map.set(owner.slots()[1], owner.one_more(0, true).context("a free place")?, 0)?)
    }

    /// Forgets the flow and the handshake of a peer, as a full map does.
    pub fn forget_peer(&mut self, peer: &Peer) -> Result<()> {
        self.forget(&flow_key(peer))
    }

    /// The senders with unfinished messages that are counted now, and how many: addresses as the map has them.
    pub fn unfinished(&mut self) -> Result<Vec<([u32; 4], u32)>> {
        let settings: Array<_, Plain<Settings>> = self.map(names::SETTINGS)?;
        let message_ms = settings.get(&0, 0)?.0.limits.message_ms;
        let now = Span::of(Clock::now()?.boot_ns, message_ms);
        let map: Array<_, Plain<Unfinished>> = self.map(names::UNFINISHED)?;
        let mut found = Vec::new();
        for slot in 0..UNFINISHED_ENTRIES {
            let Plain(entry) = map.get(&slot, 0)?;
            let count = entry.count(now);
            if count != 0 {
                found.push((entry.remote, count));
            }
        }
        Ok(found)
    }

    /// Lets the PBX acknowledge what comes before `next`.
    pub fn acknowledge(&mut self, peer: &Peer, next: u32) -> Result<()> {
        self.leave(&peer.back(ACK, PBX_NEXT, next, b""))
    }

    /// The program that sees what leaves, for whoever runs it otherwise.
    pub fn second_eye(&mut self) -> Result<OwnedFd> {
        Ok(self.loaded.second_eye()?.fd()?.as_fd().try_clone_to_owned()?)
    }

    /// Pins the program that sees what leaves.
    pub fn pin_second_eye(&mut self, path: &Path) -> Result<()> {
        self.loaded.second_eye()?.pin(path).context("pinning a program")
    }
}
