//! URLs without what may be a secret: keys are in the path of some, in the query of others, or before the host.

/// A URL of HTTP without what is before its host and behind it. An authority that is none is left out as well.
pub(super) fn without(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = if is_host(host) { host } else { "..." };
    let more = if behind.is_empty() || behind == "/" { "" } else { "/..." };
    format!("{scheme}://{host}{more}")
}

/// Whether it can be a host, or a host with a port: a password with a `/` in it makes the part before that look like one.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    host.bytes().all(fits) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text, such as an error of whoever asked, with each URL in it without secrets; also without the parts of `own` by themselves.
pub(crate) fn hidden(text: &str, own: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = ["http://", "https://"].iter().filter_map(|scheme| rest.find(scheme)).min() {
        let (before, from) = rest.split_at(begin);
        let is_end = |character: char| character.is_whitespace() || "\"'`<>,;)".contains(character);
        let url = &from[..from.find(is_end).unwrap_or(from.len())];
        // A mark of the sentence that it is in.
        let url = url.trim_end_matches([':', '.']);
        shown += before;
        shown += &without(url);
        rest = &from[url.len()..];
    }
    shown += rest;
    let authority_and_rest = own.split_once("://").map_or("", |(_, rest)| rest);
    let end = authority_and_rest.find(['/', '?', '#']).unwrap_or(authority_and_rest.len());
    let (authority, behind) = authority_and_rest.split_at(end);
    let before = authority.rsplit_once('@').map_or("", |(before, _)| before);
    let password = before.split_once(':').map_or("", |(_, password)| password);
    let query = behind.split_once('?').map_or("", |(_, query)| query);
    for secret in [behind, query, before, password].into_iter().filter(|secret| secret.len() > 1) {
        shown = shown.replace(secret, "...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_its_host_alone() {
        for (url, shown) in [
            ("https://lists.example", "https://lists.example"),
            ("https://lists.example/", "https://lists.example"),
            ("https://lists.example?key=SECRET", "https://lists.example/..."),
            ("https://lists.example/?key=SECRET", "https://lists.example/..."),
            ("https://lists.example#SECRET", "https://lists.example/..."),
            ("https://SECRET@lists.example:8443?SECRET@x", "https://lists.example:8443/..."),
            ("https://user:SECRET/more@lists.example", "https://.../..."),
            ("https://user:SECRET\\@lists.example", "https://.../..."),
            ("http://[2001:db8::1]:80/SECRET", "http://[2001:db8::1]:80/..."),
            ("http://[2001:db8::1]", "http://[2001:db8::1]"),
        ] {
            assert_eq!(without(url), shown, "{url}");
        }
    }

    #[test]
    fn an_error_is_told_without_secrets() {
        let own = "https://user:SECRET@lists.example/api/KEY/banned?token=SECRET";
        for (text, shown) in [
            (
                "bad uri: https://user:SECRET@lists.example/api/KEY/banned?token=SECRET",
                "bad uri: https://lists.example/...",
            ),
            (
                "sent to `http://x/KEY` and https://y?KEY, no more",
                "sent to `http://x/...` and https://y/..., no more",
            ),
            ("GET /api/KEY/banned?token=SECRET: no", "GET ...: no"),
            ("the query token=SECRET of user:SECRET", "the query ... of ..."),
            ("the password SECRET", "the password ..."),
            ("io: connection refused", "io: connection refused"),
        ] {
            assert_eq!(hidden(text, own), shown);
        }
        assert_eq!(hidden("a / b", "https://lists.example/"), "a / b");
    }
}
