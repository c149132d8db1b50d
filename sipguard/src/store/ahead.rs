//! A long list takes as long to write to the store as to the kernel: a second thread does the latter beside the former.

use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Result, anyhow};

use super::apply::{Apply, Touch, Touched};
use super::say::Change;
use crate::blocks::Wanted;
use crate::target::Target;

/// Entries that go to the other thread together.
const CHUNK: usize = 1024;
/// Chunks that may wait there.
const WAITING: usize = 64;

/// The way to the other thread.
#[derive(Default)]
pub struct Ahead {
    chunk: Vec<Touch>,
    sender: Option<SyncSender<Vec<Touch>>>,
    is_open: bool,
}

impl Ahead {
    /// Entries may go ahead from here on.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// Whether they may.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes an entry whose end is known, where all of the maps will not be compared anyway.
    pub fn take(&mut self, touched: &Touched, target: Target, known: Option<Option<Wanted>>) -> bool {
        if !self.is_open || self.sender.is_none() || known.is_none() || *touched == Touched::All {
            return false;
        }
        self.chunk.push(Touch { target, known });
        if self.chunk.len() == CHUNK {
            self.send();
        }
        true
    }

    fn send(&mut self) {
        if let Some(sender) = &self.sender {
            // Whoever does not listen any more has failed, and says so.
            let _failed = sender.send(take(&mut self.chunk));
        }
    }

    fn close(&mut self) {
        self.send();
        self.sender = None;
    }
}

impl Apply<'_> {
    /// Does the work of a change, while another thread writes what is known of it.
    pub fn beside<T>(
        &mut self,
        change: &mut Change<'_>,
        step: &(dyn Fn() + Sync),
        work: &mut dyn FnMut(&mut Change<'_>) -> Result<T>,
    ) -> Result<T> {
        let (sender, receiver) = sync_channel(WAITING);
        change.ahead.sender = Some(sender);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || self.write(receiver, step));
            let value = catch_unwind(AssertUnwindSafe(|| {
                let value = work(change)?;
                change.flush().map(|()| value)
            }));
            // Also after a panic, or else the other thread waits for ever.
            change.ahead.close();
            let written = writer.join().map_err(|_| anyhow!("writing to the kernel panicked"))?;
            let value = value.unwrap_or_else(|panic| resume_unwind(panic))?;
            written.map(|()| value)
        })
    }

    fn write(&mut self, chunks: Receiver<Vec<Touch>>, step: &(dyn Fn() + Sync)) -> Result<()> {
        for Touch { target, known } in chunks.into_iter().flatten() {
            step();
            self.put(&target, known.flatten())?;
        }
        Ok(())
    }
}
