//! Limits as operators write them: so many a second, and a burst of so many at once.

/// Most a second.
const MOST_PER_SECOND: u32 = 1_000_000;
/// Most at once.
const MOST_BURST: u32 = 10_000_000;

/// Most connections that a limit of open ones lets a source or a trunk have.
pub const MOST_OPEN: u32 = 1_000_000;

/// Reads `20/s`, or `20/s burst 40`: how many a second and how many at once, without a burst twice as many as a second has.
///
/// # Errors
/// What is wrong, for people.
pub fn parse(text: &str) -> Result<(u32, u32), String> {
    let wrong = || {
        format!(
            "`{text}` is no limit: write such as 20/s, or 20/s burst 40 (1 to {MOST_PER_SECOND} a second)"
        )
    };
    let in_range = |word: &str, most: u32| word.parse().ok().filter(|count| (1..=most).contains(count));
    let mut words = text.split_whitespace();
    let per_second = words.next().and_then(|word| word.strip_suffix("/s"));
    let per_second = per_second.and_then(|word| in_range(word, MOST_PER_SECOND)).ok_or_else(wrong)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => per_second * 2,
        (Some("burst"), Some(count), None) => in_range(count, MOST_BURST).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    Ok((per_second, burst))
}

/// The text of a limit, as [`parse`] reads it; `none` for none.
#[must_use]
pub fn text(rate: Option<(u32, u32)>) -> String {
    rate.map_or("none".to_owned(), |(per_second, burst)| format!("{per_second}/s burst {burst}"))
}

/// The text of a limit of open connections; `none` for none.
#[must_use]
pub fn open_text(most: Option<u32>) -> String {
    most.map_or("none".to_owned(), |most| format!("{most} at once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("20/s"), Ok((20, 40)));
        assert_eq!(parse("20/s burst 7"), Ok((20, 7)));
        for wrong in
            ["", "20", "0/s", "1000001/s", "20/s burst", "20/s burst 0", "20/s bust 7", "20/s burst 7 8"]
        {
            assert!(parse(wrong).unwrap_err().contains("is no limit"), "{wrong}");
        }
        for rate in [(20, 40), (1, 10_000_000)] {
            assert_eq!(parse(&text(Some(rate))), Ok(rate));
        }
    }
}
