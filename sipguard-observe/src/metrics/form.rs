//! The two forms of the text that Prometheus reads: OpenMetrics 1.0, and its own older one, 0.0.4.

use std::collections::BTreeSet;

/// A form of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text, version 0.0.4: what node_exporter, promtool and everything else reads.
    #[default]
    Plain,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// Its content type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Form::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The form that a client likes best, by its `Accept` (RFC 9110 section 12.5.1). OpenMetrics only where it is named, since `*/*` is also said by
    /// those who know the older form alone.
    #[must_use]
    pub fn accepted(accept: &str) -> Form {
        let mut best = (0.0, Form::Plain);
        let mut plain = 0.0_f64;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    // What is no number says nothing.
                    "q" => weight = value.trim().parse().unwrap_or(1.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match (kind.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) if weight > best.0 => {
                    best = (weight, Form::OpenMetrics);
                }
                ("text/plain", None | Some("0.0.4")) => plain = plain.max(weight),
                _ => {}
            }
        }
        if best.0 >= plain { best.1 } else { Form::Plain }
    }

    /// The text in this form, of the text in OpenMetrics.
    pub(super) fn of(self, open: String) -> String {
        match self {
            Form::OpenMetrics => open,
            Form::Plain => plain(&open),
        }
    }
}

/// The older form calls a counter by the name of its samples in the lines about it, has no unit and no end.
fn plain(open: &str) -> String {
    let counter = |line: &str| line.strip_prefix("# TYPE ")?.strip_suffix(" counter").map(str::to_owned);
    let counters: BTreeSet<String> = open.lines().filter_map(counter).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        let about = line.strip_prefix("# ").map(|rest| {
            let (keyword, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            (keyword, name, rest)
        });
        match about {
            Some(("UNIT" | "EOF", ..)) => continue,
            Some((keyword, name, rest)) => {
                let end = if counters.contains(name) { "_total" } else { "" };
                text += &format!("# {keyword} {name}{end} {rest}\n");
            }
            None => {
                text += line;
                text += "\n";
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_openmetrics_gets_it_and_everybody_else_the_older_text() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, form) in [
            (prometheus_2, Form::OpenMetrics),
            (prometheus_3, Form::OpenMetrics),
            ("application/openmetrics-text", Form::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Form::OpenMetrics),
            ("text/plain;q=0.3, application/openmetrics-text;q=0.4", Form::OpenMetrics),
            ("", Form::Plain),
            ("*/*", Form::Plain),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Plain),
            ("text/plain;version=0.0.4", Form::Plain),
            ("text/plain, application/openmetrics-text;q=0.4", Form::Plain),
            ("application/openmetrics-text;q=0, */*", Form::Plain),
            ("application/openmetrics-text;version=2.0.0", Form::Plain),
            ("application/json", Form::Plain),
            (",;=;,q=1,;;;", Form::Plain),
        ] {
            assert_eq!(Form::accepted(accept), form, "{accept}");
        }
    }

    #[test]
    fn the_older_form_calls_counters_by_their_whole_name() {
        let open = "# HELP a_bytes It is a \\\"help\\\" of many words.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                    a_bytes_total{of=\"# TYPE b counter\"} 1\n# HELP b B.\n# TYPE b gauge\nb 2\n# EOF\n";
        let older = "# HELP a_bytes_total It is a \\\"help\\\" of many words.\n# TYPE a_bytes_total counter\n\
                     a_bytes_total{of=\"# TYPE b counter\"} 1\n# HELP b B.\n# TYPE b gauge\nb 2\n";
        assert_eq!(Form::Plain.of(open.to_owned()), older);
        assert_eq!(Form::OpenMetrics.of(open.to_owned()), open);
    }
}
