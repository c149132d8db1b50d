//! Colours, numbers and sparklines.

use std::time::Duration;

use ratatui::style::{Color, Modifier, Style};

/// What the terminal can, and what its owner wants.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colours: bool,
    unicode: bool,
}

impl Theme {
    /// As asked for; red and magenta are legible on dark and on light ground, and nothing else is coloured.
    #[must_use]
    pub fn new(colours: bool, unicode: bool) -> Theme {
        Theme { colours, unicode }
    }

    /// As the environment says: `NO_COLOR` (no-color.org), and whether the locale is one of UTF-8.
    #[must_use]
    pub fn of_environment() -> Theme {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase().replace('-', "");
        Theme::new(set("NO_COLOR").is_none(), locale.ends_with("utf8"))
    }

    /// Whether the terminal shows more than ASCII.
    #[must_use]
    pub fn has_unicode(self) -> bool {
        self.unicode
    }

    /// What was stopped, and what went wrong.
    #[must_use]
    pub fn stopped(self) -> Style {
        self.coloured(Color::Red)
    }

    /// What monitor mode let pass.
    #[must_use]
    pub fn would(self) -> Style {
        self.coloured(Color::Magenta)
    }

    fn coloured(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// A title, or a number that matters.
    #[must_use]
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The head of a table.
    #[must_use]
    pub fn underlined(self) -> Style {
        self.strong().add_modifier(Modifier::UNDERLINED)
    }

    /// The pane and the row that are chosen, the words of keys.
    #[must_use]
    pub fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The column that a table is sorted by.
    #[must_use]
    pub fn arrow(self, descending: bool) -> char {
        match (self.unicode, descending) {
            (true, true) => '▼',
            (true, false) => '▲',
            (false, true) => 'v',
            (false, false) => '^',
        }
    }

    /// The last of `past` as bars, `width` of them, the latest at the right; the highest is the greatest of those that are shown.
    #[must_use]
    pub fn sparkline(self, past: &[f64], width: usize) -> String {
        let bars = if self.unicode { "▁▂▃▄▅▆▇█" } else { "_.:-=+*#" };
        let bars: Vec<char> = bars.chars().collect();
        let shown = &past[past.len().saturating_sub(width)..];
        let most = shown.iter().copied().fold(0.0, f64::max);
        let bar = |value: f64| {
            let share = if most > 0.0 { value / most } else { 0.0 };
            // Little is more than nothing.
            bars[((share * (bars.len() - 1) as f64).ceil() as usize).min(bars.len() - 1)]
        };
        let line: String = shown.iter().map(|value| bar(*value)).collect();
        format!("{line:>width$}")
    }
}

/// Packets a second, in up to six characters.
#[must_use]
pub fn rate(per_sec: f64) -> String {
    match per_sec {
        0.0 => "0".to_owned(),
        ..0.05 => "<0.1".to_owned(),
        ..9.95 => format!("{per_sec:.1}"),
        ..999_999.5 => format!("{per_sec:.0}"),
        _ => format!("{:.1}M", per_sec / 1e6),
    }
}

/// A time in its greatest unit, such as `4m`.
#[must_use]
pub fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        let theme = Theme::new(true, true);
        assert_eq!(theme.sparkline(&[0.0, 1.0, 50.0, 100.0], 6), "  ▁▂▅█");
        assert_eq!(theme.sparkline(&[100.0, 0.0, 0.0], 2), "▁▁");
        assert_eq!(Theme::new(true, false).sparkline(&[0.0, 100.0], 2), "_#");
        assert_eq!(theme.sparkline(&[], 3), "   ");
    }

    #[test]
    fn numbers() {
        let rates = [0.0, 0.01, 0.2, 9.96, 12.4, 123_456.0, 2_345_678.0].map(rate);
        assert_eq!(rates, ["0", "<0.1", "0.2", "10", "12", "123456", "2.3M"]);
        let spans = [0, 119, 120, 7199, 7200, 172_800].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0s", "119s", "2m", "119m", "2h", "2d"]);
    }
}
