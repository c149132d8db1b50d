//! Something that is opened when it is first needed, with a retry after it failed.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How often it is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Something that is opened when it is first needed, and again after it failed.
pub(super) struct Lazy<T> {
    open: Box<dyn Fn() -> Result<T> + Send>,
    value: Option<T>,
    failed: Option<(Instant, String)>,
}

impl<T> Lazy<T> {
    /// Opened by a function.
    pub(super) fn new(open: impl Fn() -> Result<T> + Send + 'static) -> Lazy<T> {
        Lazy { open: Box::new(open), value: None, failed: None }
    }

    /// It, opened now where it is not.
    ///
    /// # Errors
    /// That of opening it, also for a while after it failed.
    pub(super) fn get(&mut self) -> Result<&mut T> {
        if let Some((at, error)) = &self.failed
            && at.elapsed() < PAUSE
        {
            return Err(anyhow!("{error}"));
        }
        if self.value.is_none() {
            match (self.open)() {
                Ok(value) => self.value = Some(value),
                Err(error) => {
                    self.failed = Some((Instant::now(), format!("{error:#}")));
                    return Err(error);
                }
            }
        }
        self.failed = None;
        self.value.as_mut().ok_or_else(|| anyhow!("it is not open"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn it_is_not_tried_again_at_once() {
        let tried = Arc::new(AtomicU32::new(0));
        let count = tried.clone();
        let mut lazy: Lazy<()> = Lazy::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Err(anyhow!("no room"))
        });
        for _ in 0..3 {
            assert_eq!(lazy.get().unwrap_err().to_string(), "no room");
        }
        assert_eq!(tried.load(Ordering::Relaxed), 1);
    }
}
