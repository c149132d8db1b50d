//! One loaded program for many cases: the verifier takes most of a second to look at it.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::Program;

/// Programs that no case has at the moment.
static IDLE: Mutex<Vec<Program>> = Mutex::new(Vec::new());

/// A program that other cases have had, and others will have: to a case it is as good as one of its own.
pub struct Shared(Option<Program>);

impl Program {
    /// A program as [`Program::new`] returns it, of those that were loaded before and that nobody has now; with all its maps
    /// emptied. Cases that run at the same time have different ones.
    ///
    /// A case that needs maps of another size, another namespace, or the kernel's figures of a load takes one of its own.
    ///
    /// # Errors
    /// When it can't be loaded, or its maps can't be emptied.
    pub fn shared() -> Result<Shared> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let program = match idle {
            Some(mut program) => {
                program.reset()?;
                program
            }
            None => Self::new()?,
        };
        Ok(Shared(Some(program)))
    }
}

impl Deref for Shared {
    type Target = Program;

    fn deref(&self) -> &Program {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Program {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        // What a case of many programs at once has left over is unloaded.
        if idle.len() < most {
            idle.extend(self.0.take());
        }
    }
}
