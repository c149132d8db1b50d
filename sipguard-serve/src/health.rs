//! A part that fails: told once, and once more when it works again.

use anyhow::Result;

/// It works again when it has not failed for this long.
const CALM_NS: u64 = 10_000_000_000;

/// Whether a part fails.
#[derive(Debug)]
pub(crate) struct Health {
    what: &'static str,
    last_ns: Option<u64>,
}

impl Health {
    /// Of a part that works.
    #[must_use]
    pub(crate) fn new(what: &'static str) -> Health {
        Health { what, last_ns: None }
    }

    /// Which part.
    #[must_use]
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Whether it fails.
    #[must_use]
    pub(crate) fn fails(&self) -> bool {
        self.last_ns.is_some()
    }

    /// Takes an outcome; times are of `CLOCK_BOOTTIME`, in nanoseconds. What an operator is to be told, if anything.
    pub(crate) fn record(&mut self, now_ns: u64, outcome: &Result<()>) -> Option<String> {
        match (outcome, self.last_ns) {
            (Err(error), before) => {
                self.last_ns = Some(now_ns);
                let text = || format!("{} fails, everything else goes on: {error:#}", self.what);
                before.is_none().then(text)
            }
            (Ok(()), Some(last)) if now_ns.saturating_sub(last) >= CALM_NS => {
                self.last_ns = None;
                Some(format!("{} works again", self.what))
            }
            (Ok(()), _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn trouble_is_told_once_and_its_end_as_well() {
        let mut health = Health::new("the history");
        let mut messages = Vec::new();
        for (second, fails) in
            [(0, false), (1, true), (2, true), (3, false), (4, true), (13, false), (14, false), (15, false)]
        {
            let outcome = if fails { Err(anyhow!("no room")) } else { Ok(()) };
            messages.extend(health.record(second * 1_000_000_000, &outcome).map(|text| (second, text)));
            assert_eq!(health.fails(), (1..14).contains(&second), "after {second} s");
        }
        assert_eq!(
            messages,
            [
                (1, "the history fails, everything else goes on: no room".to_owned()),
                (14, "the history works again".to_owned())
            ]
        );
    }
}
