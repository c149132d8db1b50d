//! Who has the machine to itself. The tests of one executable run at the same time, as many as there are processors.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// Waits until no other test of this process is at work, and keeps them waiting until the guard is dropped: for a test that
/// measures a rate or memory, or loads every processor.
///
/// It holds only against tests that take [`beside_others`] or `alone` themselves, as all of the tier `slow` do.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    // A test that failed leaves nothing half done in `()`.
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no test is [`alone`] on the machine: for a test that may run beside others.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
