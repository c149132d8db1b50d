//! When a sender is banned, as the configuration wants it. Pure.

use crate::ban_rule::{self, BanRequest, BanRule};

/// When a sender is to be banned, with the default for what was named and is no more.
#[must_use]
pub(super) fn desired(request: &BanRequest, old: &BanRule, gone: &dyn Fn(&str, String) -> bool) -> BanRule {
    let default = ban_rule::DEFAULT;
    let gone = |key: &str| gone("bans", key.to_owned());
    let mut all = *request;
    if gone("enabled") {
        all.enabled = Some(true);
    }
    if gone("after") {
        all.after = Some(default.after);
    }
    if gone("address-after") {
        all.address_after = Some(default.address_after);
    }
    for (key, desired, default) in [
        ("within", &mut all.within, default.within),
        ("first", &mut all.first, default.first),
        ("longest", &mut all.longest, default.longest),
        ("quiet", &mut all.quiet, default.quiet),
    ] {
        if gone(key) {
            *desired = Some(default);
        }
    }
    let mut rule = all.of(old);
    // What a command has set, and the file does not name, gives way.
    if rule.first > rule.longest {
        rule.first = request.first.unwrap_or(default.first);
        rule.longest = request.longest.unwrap_or(default.longest);
    }
    rule
}

/// The keys that are named.
pub(super) fn keys(request: &BanRequest) -> impl Iterator<Item = String> {
    let said = [
        ("enabled", request.enabled.is_some()),
        ("after", request.after.is_some()),
        ("address-after", request.address_after.is_some()),
        ("within", request.within.is_some()),
        ("first", request.first.is_some()),
        ("longest", request.longest.is_some()),
        ("quiet", request.quiet.is_some()),
    ];
    said.into_iter().filter(|(_, said)| *said).map(|(key, _)| key.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_command_has_set_gives_way_to_what_is_named() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let request = |first, longest| BanRequest { first, longest, ..BanRequest::default() };
        let spans = |request: &BanRequest, first, longest, is_gone: bool| {
            let old = BanRule { first: minutes(first), longest: minutes(longest), ..ban_rule::DEFAULT };
            let rule = desired(request, &old, &|_, _| is_gone);
            (rule.first.as_secs() / 60, rule.longest.as_secs() / 60)
        };
        assert_eq!(spans(&request(Some(minutes(5)), None), 2, 9, false), (5, 9));
        assert_eq!(spans(&request(Some(minutes(5)), None), 2, 3, false), (5, 60));
        assert_eq!(spans(&request(None, Some(minutes(5))), 7, 9, false), (1, 5));
        assert_eq!(spans(&request(None, None), 7, 9, false), (7, 9));
        assert_eq!(spans(&request(None, None), 7, 9, true), (1, 60));
    }
}
