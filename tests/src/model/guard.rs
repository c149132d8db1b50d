//! The loaded programs, as the sequences use them.

use anyhow::Result;
use sipguard_common::abi::Flow;

use super::pbx::any;
use super::segment::{Segment, Tuple};
use crate::chance::Chance;
use crate::program::{Program, Shared, XDP_PASS};

/// The guard.
pub struct Guard {
    program: Shared,
    /// Whether it is asked at all: without it everything passes, which shows that the judge sees something.
    pub absent: bool,
    /// Whether it is asked why, which takes longer.
    pub explains: bool,
    /// Why it did what it did last.
    pub why: &'static str,
}

/// What became of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It passed.
    Passed,
    /// It became this reset.
    Reset(Segment),
    /// It was dropped.
    Dropped,
}

impl Guard {
    /// The loaded programs.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn new() -> Result<Self> {
        let mut program = Program::shared()?;
        // As good as the keys of an installation: those of the other tests have zeros where short segments are hashed.
        let mut chance = Chance::new(0x5eed);
        program.change(|settings| {
            settings.hash_keys =
                std::array::from_fn(|_| u64::from(any(&mut chance)) << 32 | u64::from(any(&mut chance)));
        })?;
        Ok(Guard { program, absent: false, explains: false, why: "" })
    }

    /// A segment comes in.
    ///
    /// # Errors
    /// When it was changed to what is no reset of it, or the program can't be run.
    pub fn judge(&mut self, segment: &Segment) -> Result<Fate> {
        if self.absent {
            return Ok(Fate::Passed);
        }
        let frame = segment.frame(true);
        let (action, after) = if self.explains {
            let run = self.program.run(&frame)?;
            self.why = run.reason.name();
            (run.action, run.frame)
        } else {
            self.program.run_uncounted(&frame)?
        };
        if action != XDP_PASS {
            Ok(Fate::Dropped)
        } else if after == frame {
            Ok(Fate::Passed)
        } else {
            Ok(Fate::Reset(segment.changed(&after)?))
        }
    }

    /// The PBX sends a segment.
    ///
    /// # Errors
    /// When the program can't be run.
    pub fn hear(&mut self, segment: &Segment) -> Result<()> {
        self.program.leave(&segment.frame(false))
    }

    /// What it knows of a connection.
    #[must_use]
    pub fn flow(&mut self, tuple: Tuple) -> Option<Flow> {
        self.program.flow_of(&tuple.key())
    }

    /// What a segment may change of it that its receiver takes.
    #[must_use]
    pub fn known(&mut self, tuple: Tuple) -> Option<Flow> {
        // Not when it was written, nor by which CPU.
        self.flow(tuple).map(|flow| Flow { lock: 0, ..flow })
    }

    /// Lets two seconds pass for a connection, if it has a flow.
    ///
    /// # Errors
    /// When a map can't be changed.
    pub fn pass_time(&mut self, tuple: Tuple) -> Result<()> {
        let key = tuple.key();
        match self.program.flow_of(&key) {
            Some(flow) => self
                .program
                .set_flow(&key, Flow { first_ns: flow.first_ns.saturating_sub(2_000_000_000), ..flow }),
            None => Ok(()),
        }
    }

    /// Lets it forget a connection.
    ///
    /// # Errors
    /// When a map can't be changed.
    pub fn forget(&mut self, tuple: Tuple) -> Result<()> {
        self.program.forget(&tuple.key())
    }

    /// Lets it forget which ports the PBX speaks SIP from.
    ///
    /// # Errors
    /// When the map can't be changed.
    pub fn forget_spoken(&mut self, port: u16) -> Result<()> {
        self.program.forget_spoken(port)
    }

    /// Holds back the bytes of a server that the PBX dialled, or no more.
    ///
    /// # Errors
    /// When a map can't be changed.
    pub fn hold_back(&mut self, tuple: Tuple, holds: bool) -> Result<()> {
        self.program.hold_back(&tuple.key(), holds)
    }

    /// Whether it lets a server greet at once.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn is_greeter(&mut self, tuple: Tuple) -> Result<bool> {
        self.program.is_greeter(tuple.remote.0.into())
    }

    /// Lets it forget which servers greet.
    ///
    /// # Errors
    /// When the map can't be changed.
    pub fn forget_greeters(&mut self) -> Result<()> {
        self.program.forget_greeters()
    }
}
