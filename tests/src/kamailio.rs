//! A real PBX: Kamailio in a namespace.

use std::{
    collections::HashSet,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{application::uninterrupted, netns::Netns, process::Running, scratch::Scratch, sipp::Transport};

const CONFIG: &str = include_str!("../fixtures/kamailio.cfg");

/// How long Kamailio may take until it answers.
const START: Duration = Duration::from_secs(60);

/// A running Kamailio: registrar for `sipguard.test`, answers OPTIONS, sends calls to `9...` to the trunk. Drop
/// stops it and removes its files.
#[derive(Debug)]
pub struct Kamailio {
    // The process goes before the directory it writes to.
    process: Running,
    namespace: String,
    scratch: Scratch,
}

/// The outside line: where Kamailio sends calls whose user part begins with 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trunk<'a> {
    /// The address that it dials, port 5060.
    pub address: &'a str,
    /// Over what it dials.
    pub transport: Transport,
}

/// What Kamailio itself said about messages that it was handed and could not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Complaints {
    /// Messages that the parser gave up on.
    pub parse_errors: usize,
    /// Messages that parsed and failed `sanity_check`.
    pub sanity_failures: usize,
    /// TCP streams in which its reader lost the framing.
    pub framing_errors: usize,
}

impl Complaints {
    /// All kinds together.
    #[must_use]
    pub const fn total(self) -> usize {
        self.parse_errors + self.sanity_failures + self.framing_errors
    }
}

impl Kamailio {
    /// Starts it on port 5060 (UDP and TCP) of each address of the namespace and waits until it answers there.
    ///
    /// It dials the trunk from any of `addresses`, so the trunk needs a route back to all of them.
    pub fn start(namespace: &Netns, addresses: &[&str], trunk: Option<Trunk<'_>>) -> Result<Self> {
        Self::begin(namespace, addresses, trunk, &[])
    }

    /// The same behind a balancer: every TCP connection begins with a PROXY header.
    pub fn start_behind_balancer(
        namespace: &Netns,
        addresses: &[&str],
        trunk: Option<Trunk<'_>>,
    ) -> Result<Self> {
        Self::begin(namespace, addresses, trunk, b"PROXY TCP4 127.0.0.1 127.0.0.1 9 5060\r\n")
    }

    /// `header` is what its TCP connections begin with.
    fn begin(namespace: &Netns, addresses: &[&str], trunk: Option<Trunk<'_>>, header: &[u8]) -> Result<Self> {
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().with_context(|| format!("{address} is no address")))
            .collect::<Result<_>>()?;
        let scratch = Scratch::new("kamailio")?;
        let config = config(&addresses, trunk, &scratch.join("control").to_string_lossy());
        let behind = if header.is_empty() { "" } else { "tcp_accept_haproxy=yes" };
        let config = config.replace("@HAPROXY@", behind);
        let config = scratch.write("kamailio.cfg", &config)?;
        std::fs::create_dir_all("/run/kamailio").context("making /run/kamailio")?;
        let log = File::create(scratch.join("log")).context("making the log of kamailio")?;
        let mut command = namespace.command("kamailio");
        command.args(["-DD", "-E", "-m", "64", "-M", "8", "-f"]).arg(config).arg("-w").arg(scratch.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Running::start("kamailio", &mut command)?;
        let mut kamailio = Self { process, namespace: namespace.path(), scratch };
        kamailio.wait_until_it_answers(namespace, &addresses, header)?;
        Ok(kamailio)
    }

    /// All that it has logged.
    pub fn log(&self) -> Result<String> {
        let path = self.scratch.join("log");
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How many malformed messages it was handed, by its own account.
    pub fn complaints(&self) -> Result<Complaints> {
        Ok(complaints(&self.log()?))
    }

    /// How many contacts are registered now.
    pub fn contacts(&self) -> Result<usize> {
        Ok(self.users()?.len())
    }

    /// The users who are registered now, one for each contact.
    pub fn users(&self) -> Result<Vec<String>> {
        Ok(users(&self.control(&["ul.dump"])?))
    }

    /// How many requests with this User-Agent got through its parser, sane or not.
    pub fn requests_from(&self, user_agent: &str) -> Result<usize> {
        Ok(requests_from(&self.log()?, user_agent))
    }

    /// How many requests of a method from an address got through its parser.
    pub fn requests(&self, method: &str, source: IpAddr) -> Result<usize> {
        Ok(requests(&self.log()?, method, source))
    }

    /// How many calls there are of which an address has sent a request of this method, however often: who has sent ACK has a
    /// call, who has sent BYE has it no more.
    pub fn calls(&self, method: &str, source: IpAddr) -> Result<usize> {
        Ok(calls(&self.log()?, method, source))
    }

    /// Asks it over its control socket, as in `kamcmd ul.dump`.
    pub fn control(&self, words: &[&str]) -> Result<String> {
        let socket = format!("unix:{}", self.scratch.join("control").display());
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace)).args(["kamcmd", "-s", &socket]).args(words);
        crate::process::output(&mut command)
    }

    /// Fails when it has ended.
    pub fn expect_alive(&mut self) -> Result<()> {
        self.process.expect_alive()
    }

    fn wait_until_it_answers(
        &mut self,
        namespace: &Netns,
        addresses: &[IpAddr],
        header: &[u8],
    ) -> Result<()> {
        let until = Instant::now() + START;
        for address in addresses {
            let address = SocketAddr::new(*address, 5060);
            while !namespace.enter(|| answers_udp(address) && answers_tcp(address, header))? {
                if self.process.try_wait()?.is_some() || Instant::now() > until {
                    bail!("kamailio does not serve {address}; its log: {}", self.log()?);
                }
                crate::interrupt::pause(Duration::from_millis(50))?;
            }
        }
        Ok(())
    }
}

fn config(addresses: &[IpAddr], trunk: Option<Trunk<'_>>, control: &str) -> String {
    let listen: Vec<String> = addresses
        .iter()
        .map(|address| SocketAddr::new(*address, 5060))
        .map(|socket| format!("listen=udp:{socket}\nlisten=tcp:{socket}"))
        .collect();
    // Without a trunk an outside call goes nowhere: port 9 is "discard".
    let trunk = trunk.map_or("sip:127.0.0.1:9;transport=tcp".to_owned(), |Trunk { address, transport }| {
        format!("sip:{address}:5060;transport={}", transport.parameter())
    });
    CONFIG.replace("@LISTEN@", &listen.join("\n")).replace("@TRUNK@", &trunk).replace("@CONTROL@", control)
}

fn options(transport: &str) -> String {
    format!(
        "OPTIONS sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:9;branch=z9hG4bKready\r\n\
         From: <sip:lab@sipguard.test>;tag=1\r\nTo: <sip:lab@sipguard.test>\r\nCall-ID: ready\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 1\r\nContent-Length: 0\r\n\r\n"
    )
}

fn answers_udp(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<usize> {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(address)?;
        socket.send(options("UDP").as_bytes())?;
        uninterrupted(|| socket.recv(&mut [0; 2048]))
    };
    ask().is_ok_and(|read| read > 0)
}

fn answers_tcp(address: SocketAddr, header: &[u8]) -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(&[header, options("TCP").as_bytes()].concat())?;
        uninterrupted(|| stream.read(&mut [0; 2048]))
    };
    ask().is_ok_and(|read| read > 0)
}

fn complaints(log: &str) -> Complaints {
    let count = |needle: &str| log.lines().filter(|line| line.contains(needle)).count();
    Complaints {
        parse_errors: count("PARSE-ERROR proto="),
        sanity_failures: count("SANITY-FAIL proto="),
        framing_errors: count("tcp_read_req(): bad request"),
    }
}

fn users(dump: &str) -> Vec<String> {
    let mut user = "";
    let mut users = vec![];
    for line in dump.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("AoR: ") {
            user = name;
        } else if line == "Contact: {" {
            users.push(user.to_owned());
        }
    }
    users
}

fn requests_from(log: &str, user_agent: &str) -> usize {
    let end = format!(" ua={user_agent}");
    log.lines().filter(|line| line.contains("RX proto=") && line.ends_with(&end)).count()
}

fn requests(log: &str, method: &str, source: IpAddr) -> usize {
    lines(log, method, source).count()
}

fn calls(log: &str, method: &str, source: IpAddr) -> usize {
    let call = |line: &str| Some(line.split_once(" ci=")?.1.split(' ').next()?.to_owned());
    lines(log, method, source).filter_map(call).collect::<HashSet<_>>().len()
}

fn lines<'a>(log: &'a str, method: &str, source: IpAddr) -> impl Iterator<Item = &'a str> {
    let (method, source) = (format!(" method={method} "), format!(" src={source}:"));
    log.lines()
        .filter(move |line| line.contains("RX proto=") && line.contains(&method) && line.contains(&source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_complaint_is_counted() {
        let log = " 3(7) NOTICE: <script>: RX proto=tcp src=10.77.0.2:4 len=3 method=REGISTER ci=1 ua=PARSE-ERROR\n\
                    NOTICE: <script>: PARSE-ERROR proto=udp src=10.77.0.2:5 len=3\n\
                    NOTICE: <script>: SANITY-FAIL proto=tcp src=10.77.0.2:6 ci=1\n";
        let complaints = complaints(log);
        assert_eq!(complaints, Complaints { parse_errors: 1, sanity_failures: 1, framing_errors: 0 });
        assert_eq!(complaints.total(), 2);
        assert_eq!(requests_from(log, "PARSE-ERROR"), 1);
        assert_eq!(requests_from(log, "ERROR"), 0);
        assert_eq!(requests(log, "REGISTER", "10.77.0.2".parse().unwrap()), 1);
        assert_eq!(requests(log, "INVITE", "10.77.0.2".parse().unwrap()), 0);
    }

    #[test]
    fn a_request_that_comes_again_is_one_call() {
        let line =
            |call: &str| format!("NOTICE: RX proto=udp src=10.77.0.2:4 len=3 method=ACK ci={call} ua=SIPp\n");
        let log = [line("1-a"), line("1-a"), line("2-a")].concat();
        let source = "10.77.0.2".parse().unwrap();
        assert_eq!((requests(&log, "ACK", source), calls(&log, "ACK", source)), (3, 2));
        assert_eq!(calls(&log, "BYE", source), 0);
    }

    #[test]
    fn each_contact_is_a_user() {
        let dump = "AoRs: {\nInfo: {\nAoR: a\nContacts: {\nContact: {\n}\nContact: {\n}\n}\nAoR: b\n}";
        assert_eq!(users(dump), ["a", "a"]);
    }

    #[test]
    fn every_address_gets_both_transports() {
        let trunk = Trunk { address: "10.77.1.2", transport: Transport::Udp };
        let text = config(&["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()], Some(trunk), "/c");
        let outside = "$du = \"sip:10.77.1.2:5060;transport=udp\";";
        for line in ["listen=udp:10.77.0.1:5060", "listen=tcp:[fd77::1]:5060", outside] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("@LISTEN@") && !text.contains("@CONTROL@") && !text.contains("@TRUNK@"));
    }
}
