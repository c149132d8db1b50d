//! Durations as operators write them.

use std::time::Duration;

use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use jiff::{SignedDuration, SpanRelativeTo, SpanRound, Unit};

/// A duration: bare seconds (as fail2ban passes), `1d`, `29m59.4s`, or `permanent`, which is none.
///
/// # Errors
/// What is wrong, for people.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    if text == "permanent" {
        return Ok(Span(None));
    }
    let wrong = || {
        format!("`{text}` is no duration: write seconds, or such as 90s, 15m, 1d, 29m59.4s, or `permanent`")
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let span = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return if span.is_zero() { Err(wrong()) } else { Ok(Span(Some(span))) };
    }
    let span = SpanParser::new().parse_span(text).map_err(|_| wrong())?;
    // Days and weeks; a month or a year is not always as long.
    let span = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let span = Duration::try_from(span).map_err(|_| wrong())?;
    if span.is_zero() { Err(wrong()) } else { Ok(Span(Some(span))) }
}

/// Such as `1d 2h`, `15m` or `29m 59s 400ms`; [`parse_duration`] reads it.
#[must_use]
pub fn shown(span: Duration) -> String {
    let round = SpanRound::new().largest(Unit::Day).days_are_24_hours();
    let by_unit =
        SignedDuration::try_from(span).and_then(jiff::Span::try_from).and_then(|span| span.round(round));
    let printer = SpanPrinter::new().spacing(Spacing::BetweenUnits).designator(Designator::HumanTime);
    by_unit.map_or_else(
        // Longer than twenty thousand years.
        |_| printer.unsigned_duration_to_string(&span),
        |span| printer.span_to_string(&span),
    )
}

/// What [`parse_duration`] gives: `None` is permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Option<Duration>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text: &str| parse_duration(text).unwrap().0.unwrap().as_secs_f64();
        assert_eq!(seconds("86400"), 86400.0);
        assert_eq!(seconds("5s"), 5.0);
        assert_eq!(seconds("1d"), 86400.0);
        assert!((seconds("29m59.4s") - 1799.4).abs() < 1e-6);
        assert_eq!(parse_duration("permanent"), Ok(Span(None)));
        assert_eq!(seconds("2 weeks 1 min"), 1_209_660.0);
        for text in [
            "",
            "0",
            "-5",
            "-5s",
            "5s ago",
            "0s",
            "5 parsecs",
            "1.5d",
            "1month",
            "9999999999d",
            "nan",
            "inf",
            "1e400",
        ] {
            assert!(parse_duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }
    #[test]
    fn what_is_shown_is_read() {
        for (text, millis) in [
            ("1d", 86_400_000),
            ("1d 2h", 93_600_000),
            ("15m", 900_000),
            ("400d", 34_560_000_000),
            ("29m 59s 400ms", 1_799_400),
        ] {
            let span = Duration::from_millis(millis);
            assert_eq!(shown(span), text);
            assert_eq!(parse_duration(text), Ok(Span(Some(span))));
        }
        assert_eq!(shown(Duration::ZERO), "0s");
        assert_eq!(parse_duration(&shown(Duration::from_nanos(1))).unwrap().0, Some(Duration::from_nanos(1)));
        assert!(shown(Duration::MAX).ends_with('s'), "{}", shown(Duration::MAX));
    }
}
