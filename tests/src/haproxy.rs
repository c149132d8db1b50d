//! A real balancer: HAProxy in a namespace, which hands on TCP connections and says whose they are.

use std::{fs::File, net::SocketAddr, process::Stdio, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{application::PATIENCE, netns::Netns, process::Running, scratch::Scratch};

/// Which PROXY header it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// A running HAProxy. Drop stops it and removes its files.
#[derive(Debug)]
pub struct Haproxy {
    // The process goes before the directory it writes to.
    process: Running,
    scratch: Scratch,
}

impl Haproxy {
    /// Starts it: connections to `listen` go on to `server`, with a header. Waits until it listens.
    pub fn start(
        namespace: &Netns,
        listen: SocketAddr,
        server: SocketAddr,
        header: ProxyHeader,
    ) -> Result<Self> {
        let scratch = Scratch::new("haproxy")?;
        let option = match header {
            ProxyHeader::V1 => "send-proxy",
            ProxyHeader::V2 => "send-proxy-v2",
        };
        let config = format!(
            "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 5m\n  \
             timeout server 5m\nlisten sip\n  bind {listen}\n  server pbx {server} {option}\n"
        );
        let config = scratch.write("haproxy.cfg", &config)?;
        let log = File::create(scratch.join("log")).context("making the log of haproxy")?;
        let mut command = namespace.command("haproxy");
        command.args(["-db", "-f"]).arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Running::start("haproxy", &mut command)?;
        let mut haproxy = Self { process, scratch };
        haproxy.wait_until_it_listens(namespace, listen)?;
        Ok(haproxy)
    }

    /// Fails when it has ended.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.process.expect_alive()
    }

    fn wait_until_it_listens(&mut self, namespace: &Netns, listen: SocketAddr) -> Result<()> {
        let port = format!(":{}", listen.port());
        let until = Instant::now() + PATIENCE;
        while !namespace.run(&["ss", "-ltnH", "sport", "=", &port])?.contains(&port) {
            if self.process.try_wait()?.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default();
                bail!("haproxy does not listen on {listen}: {log}");
            }
            crate::interrupt::pause(std::time::Duration::from_millis(20))?;
        }
        Ok(())
    }
}
