//! Real user agents, each in a namespace: what phones of different makers send, as they send it.

mod baresip;
mod linphone;

use std::{io::Write as _, net::SocketAddr};

pub use self::{baresip::Baresip, linphone::Linphone};
use crate::sipp::Transport;

/// How a phone finds its registrar.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The user part of its address.
    pub user: &'a str,
    /// Where the registrar listens.
    pub registrar: SocketAddr,
    /// Over what it talks to the registrar.
    pub transport: Transport,
    /// How often it renews its registration.
    pub renewal_secs: u32,
}

impl Line<'_> {
    /// The URI of the registrar, or of a `user` there.
    #[must_use]
    pub fn uri(&self, user: Option<&str>) -> String {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        let (ip, port) = (self.registrar.ip(), self.registrar.port());
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        format!("sip:{user}{host}:{port};transport={}", self.transport.parameter())
    }
}

/// Whether a program is installed; when it is not, says so by name, since the test is then as good as skipped.
#[must_use]
pub fn is_installed(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        // Not `eprintln!`, which the test harness keeps to itself when the test passes.
        let _closed = writeln!(
            std::io::stderr(),
            "skipped: {program} is not installed (`cargo xtask setup` installs its package {package})"
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_host_and_transport() {
        let mut line = Line {
            user: "a",
            registrar: "10.77.0.1:5060".parse().unwrap(),
            transport: Transport::Tcp,
            renewal_secs: 60,
        };
        assert_eq!(line.uri(None), "sip:10.77.0.1:5060;transport=tcp");
        line.registrar = "[fd77::1]:5060".parse().unwrap();
        line.transport = Transport::Udp;
        assert_eq!(line.uri(Some("b")), "sip:b@[fd77::1]:5060;transport=udp");
    }

    #[test]
    fn a_program_that_is_not_there_is_not_installed() {
        assert!(is_installed("sh", "dash") && !is_installed("no-such-phone", "no-such-package"));
    }
}
