//! When a sender is banned, as the configuration wants it. Pure.

use crate::ban_rule::{self, BanRequest, BanRule};

/// When a sender is to be banned, with the default for what was named and is no more.
#[must_use]
pub fn wanted(wish: &BanRequest, old: &BanRule, gone: &dyn Fn(&str, String) -> bool) -> BanRule {
    let default = ban_rule::DEFAULT;
    let gone = |key: &str| gone("bans", key.to_owned());
    let mut all = *wish;
    if gone("enabled") {
        all.enabled = Some(true);
    }
    if gone("after") {
        all.after = Some(default.after);
    }
    if gone("address-after") {
        all.address_after = Some(default.address_after);
    }
    for (key, wanted, default) in [
        ("within", &mut all.within, default.within),
        ("first", &mut all.first, default.first),
        ("longest", &mut all.longest, default.longest),
        ("quiet", &mut all.quiet, default.quiet),
    ] {
        if gone(key) {
            *wanted = Some(default);
        }
    }
    let mut rule = all.of(old);
    // What a command has set, and the file does not name, gives way.
    if rule.first > rule.longest {
        rule.first = wish.first.unwrap_or(default.first);
        rule.longest = wish.longest.unwrap_or(default.longest);
    }
    rule
}

/// The keys that are named.
pub fn keys(wish: &BanRequest) -> impl Iterator<Item = String> {
    let said = [
        ("enabled", wish.enabled.is_some()),
        ("after", wish.after.is_some()),
        ("address-after", wish.address_after.is_some()),
        ("within", wish.within.is_some()),
        ("first", wish.first.is_some()),
        ("longest", wish.longest.is_some()),
        ("quiet", wish.quiet.is_some()),
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
        let wish = |first, longest| BanRequest { first, longest, ..BanRequest::default() };
        let spans = |wish: &BanRequest, first, longest, is_gone: bool| {
            let old = BanRule { first: minutes(first), longest: minutes(longest), ..ban_rule::DEFAULT };
            let rule = wanted(wish, &old, &|_, _| is_gone);
            (rule.first.as_secs() / 60, rule.longest.as_secs() / 60)
        };
        assert_eq!(spans(&wish(Some(minutes(5)), None), 2, 9, false), (5, 9));
        assert_eq!(spans(&wish(Some(minutes(5)), None), 2, 3, false), (5, 60));
        assert_eq!(spans(&wish(None, Some(minutes(5))), 7, 9, false), (1, 5));
        assert_eq!(spans(&wish(None, None), 7, 9, false), (7, 9));
        assert_eq!(spans(&wish(None, None), 7, 9, true), (1, 60));
    }
}
