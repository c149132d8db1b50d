//! Durations as operators write them.

use std::time::Duration;

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
    // humantime takes whole numbers only: the fraction of a last `s` is cut off and added again.
    let (whole, fraction) = match text.rsplit_once('.') {
        Some((whole, fraction)) => {
            let digits = fraction.strip_suffix('s').ok_or_else(wrong)?;
            (format!("{whole}s"), format!("0.{digits}").parse::<f64>().map_err(|_| wrong())?)
        }
        None => (text.to_owned(), 0.0),
    };
    let span = humantime::parse_duration(&whole).map_err(|_| wrong())?;
    let span = span + Duration::try_from_secs_f64(fraction).map_err(|_| wrong())?;
    if span.is_zero() { Err(wrong()) } else { Ok(Span(Some(span))) }
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
        for text in ["", "0", "-5", "5 parsecs", "1.5d", "nan", "inf", "1e400"] {
            assert!(parse_duration(text).unwrap_err().contains("is no duration"), "{text}");
        }
    }
}
