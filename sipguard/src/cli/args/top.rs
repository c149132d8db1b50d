//! `top`.

use std::time::Duration;

use sipguard_core::duration::{Span, parse_duration};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Time between readings: seconds, or such as 500ms; 100ms to 1h
    #[arg(short, long, value_name = "DURATION", default_value = "1", value_parser = delay)]
    pub delay: Duration,

    /// Print one reading and end; rates are those of one delay
    #[arg(long)]
    pub once: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    match parse_duration(text) {
        Ok(Span(Some(span))) if range.contains(&span) => Ok(span),
        _ => Err(format!("`{text}` is no delay: write 100ms to 1h, such as 1 (a second) or 500ms")),
    }
}
