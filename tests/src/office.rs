//! Two hundred phones of many makes: over UDP and TCP, each with an address of its own or behind one of others, that register and ping.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{application::uninterrupted, chance::Chance, dial, netns::Netns};

/// How many there are.
pub const PHONES: usize = 200;
/// The first of those that share an address.
pub const SHARING: usize = 100;
/// How many share one.
const BEHIND_ONE: usize = 10;
/// What every phone's password makes of a challenge begins with.
pub const SECRET: &str = "5ecre7";
const PATIENCE: Duration = Duration::from_millis(500);

/// Makes with what tells their messages from others': User-Agent, and header lines of their own.
const MAKES: [(&str, &str); 10] = [
    ("Yealink SIP-T46S 66.85.0.5", "Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY\r\n"),
    ("Yealink SIP-T54W 96.86.0.70", "Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY\r\n"),
    ("Grandstream GXP2160 1.0.11.39", "Supported: path\r\nX-Grandstream-PBX: true\r\n"),
    ("snomD785/10.1.127.10", "Supported: path, gruu\r\nX-Real-IP: 192.168.1.20\r\n"),
    ("PolycomVVX-VVX_411-UA/5.9.5.0614", "Accept-Language: en\r\n"),
    ("Cisco/SPA504G-7.6.2b", "Supported: replaces\r\n"),
    ("Fanvil X6U 2.4.10", "Allow: INVITE, ACK, BYE, OPTIONS\r\n"),
    ("AVM FRITZ!Box 7590 154.07.29", "Supported: 100rel,replaces,timer\r\n"),
    ("Linphone/5.1.2 (Debian) LinphoneSDK/5.2", "Supported: replaces, outbound, gruu, path\r\n"),
    ("MicroSIP/3.21.3", "Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO\r\n"),
];

/// The phones, on a thread of their own. Drop ends them.
#[derive(Debug)]
pub struct Office {
    stop: Arc<AtomicBool>,
    answers: Arc<Vec<AtomicU64>>,
    faults: Arc<Mutex<Vec<(usize, Fault)>>>,
    thread: Option<JoinHandle<()>>,
}

/// A message that is legal and strange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Header lines of it.
    pub lines: String,
    /// A parameter of its Contact.
    pub param: String,
    /// The text in it that kills.
    pub fatal: String,
}

impl Fault {
    /// One of many.
    #[must_use]
    pub fn new(chance: &mut Chance) -> Self {
        let length = 5 + chance.below(8);
        let word: String = (0..length).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
        let number = 1 + chance.below(1_000_000);
        let (lines, param, fatal) = match chance.below(7) {
            0 => (format!("X-{word}: {number}\r\n"), String::new(), format!("X-{word}")),
            1 => (String::new(), format!(";{word}={number}"), format!(";{word}=")),
            2 => (format!("Subject: %{word}%n%{number}\r\n"), String::new(), format!("%{word}%n")),
            3 => (format!("Organization: {}\r\n", word.repeat(60)), String::new(), word.repeat(60)),
            4 => (format!("Supported: {word}\r\n"), String::new(), format!("Supported: {word}")),
            5 => (format!("Session-Expires: {number};{word}\r\n"), String::new(), format!("{number};{word}")),
            _ => (format!("Priority: \u{e9}{word}\r\n"), String::new(), format!("\u{e9}{word}")),
        };
        Self { lines, param, fatal }
    }
}

impl Office {
    /// Addresses of the office, below 10.77.0.0/24.
    #[must_use]
    pub fn address(phone: usize) -> IpAddr {
        let host = if phone < SHARING { 10 + phone } else { 200 + (phone - SHARING) / BEHIND_ONE };
        [10, 77, 0, host as u8].into()
    }

    /// The identity of a phone.
    #[must_use]
    pub fn identity(phone: usize) -> String {
        format!("sip:{}@pbx.example", 1000 + phone)
    }

    /// Opens it in a namespace that has the first address of its interface already.
    pub fn open(namespace: &Netns, interface: &str, pbx: SocketAddr, seed: u64) -> Result<Self> {
        for phone in (0..PHONES).filter(|phone| *phone < SHARING || phone % BEHIND_ONE == 0) {
            namespace.add_address(interface, &format!("{}/24", Self::address(phone)))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let answers: Arc<Vec<AtomicU64>> = Arc::new((0..PHONES).map(|_| AtomicU64::new(0)).collect());
        let faults = Arc::new(Mutex::new(Vec::new()));
        let mut chance = Chance::new(seed);
        let mut phones = Vec::new();
        for number in 0..PHONES {
            let is_tcp = number % 2 == 1;
            let own = SocketAddr::new(Self::address(number), if is_tcp { 0 } else { 20_000 + number as u16 });
            let socket = if is_tcp { None } else { Some(namespace.enter(|| UdpSocket::bind(own))??) };
            if let Some(socket) = &socket {
                socket.set_nonblocking(true)?;
            }
            let first = Instant::now() + Duration::from_millis(u64::from(chance.below(1000)));
            phones.push(Phone { number, own, pbx, socket, stream: None, sequence: 0, next: first });
        }
        let work = Work {
            namespace: namespace.path(),
            phones,
            chance,
            stop: Arc::clone(&stop),
            answers: Arc::clone(&answers),
            faults: Arc::clone(&faults),
        };
        let namespace = File(namespace.path());
        let thread = std::thread::spawn(move || {
            if let Err(error) = namespace.enter().and_then(|()| work.run()) {
                eprintln!("lab: the office: {error:#}");
            }
        });
        Ok(Self { stop, answers, faults, thread: Some(thread) })
    }

    /// Lets a phone send a fault as its next message.
    pub fn send(&self, phone: usize, fault: &Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((phone, fault.clone()));
    }

    /// How many answers a phone has got.
    #[must_use]
    pub fn answers(&self, phone: usize) -> u64 {
        self.answers[phone].load(Ordering::Relaxed)
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _panicked = thread.join();
        }
    }
}

struct File(String);

impl File {
    fn enter(&self) -> Result<()> {
        let file = std::fs::File::open(&self.0).with_context(|| format!("opening {}", self.0))?;
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).context("entering the office")
    }
}

struct Phone {
    number: usize,
    own: SocketAddr,
    pbx: SocketAddr,
    socket: Option<UdpSocket>,
    stream: Option<TcpStream>,
    sequence: u32,
    next: Instant,
}

struct Work {
    namespace: String,
    phones: Vec<Phone>,
    chance: Chance,
    stop: Arc<AtomicBool>,
    answers: Arc<Vec<AtomicU64>>,
    faults: Arc<Mutex<Vec<(usize, Fault)>>>,
}

impl Work {
    fn run(mut self) -> Result<()> {
        anyhow::ensure!(!self.namespace.is_empty(), "no namespace");
        while !self.stop.load(Ordering::Relaxed) {
            let faults = std::mem::take(&mut *self.faults.lock().unwrap_or_else(PoisonError::into_inner));
            for (phone, fault) in faults {
                let message = self.phones[phone].message(&mut self.chance, Some(&fault));
                self.phones[phone].send(&message);
            }
            for phone in &mut self.phones {
                if phone.hear() {
                    self.answers[phone.number].fetch_add(1, Ordering::Relaxed);
                }
                if phone.next > Instant::now() {
                    continue;
                }
                phone.next = Instant::now() + Duration::from_millis(700 + u64::from(self.chance.below(1300)));
                let message = if self.chance.percent(25) {
                    b"\r\n\r\n".to_vec()
                } else {
                    phone.message(&mut self.chance, None)
                };
                phone.send(&message);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Phone {
    fn message(&mut self, chance: &mut Chance, fault: Option<&Fault>) -> Vec<u8> {
        self.sequence += 1;
        let Self { number, own, sequence, .. } = self;
        let (agent, lines) = MAKES[*number % MAKES.len()];
        // One in twenty is of a make that nobody else has.
        let agent = if *number % 20 == 7 { format!("Rare{number}/1.{number}") } else { agent.to_owned() };
        let method = if chance.percent(60) { "REGISTER" } else { "OPTIONS" };
        let transport = if self.socket.is_some() { "UDP" } else { "TCP" };
        let (user, id) = (1000 + *number, chance.below(u32::MAX));
        let (more, param) = fault.map_or(("", ""), |fault| (fault.lines.as_str(), fault.param.as_str()));
        format!(
            "{method} sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/{transport} {own};branch=z9hG4bK{id:x};rport\r\n\
             From: <sip:{user}@pbx.example>;tag={id:x}\r\nTo: <sip:{user}@pbx.example>\r\nCall-ID: {id}-{number}@{own}\r\n\
             CSeq: {sequence} {method}\r\nContact: <sip:{user}@{own}>{param}\r\nMax-Forwards: 70\r\nUser-Agent: {agent}\r\n{lines}{more}\
             Authorization: Digest username=\"{user}\", response=\"{SECRET}{id:x}\"\r\n\
             Expires: 300\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn send(&mut self, message: &[u8]) {
        // A PBX that is not there is what this is about.
        if let Some(socket) = &self.socket {
            let _refused = socket.send_to(message, self.pbx);
            return;
        }
        if self.stream.is_none() {
            self.stream = dial::here(self.own, self.pbx, PATIENCE).ok().flatten();
            if let Some(stream) = &self.stream {
                let _blocking = stream.set_nonblocking(true);
            }
        }
        if self.stream.as_mut().is_some_and(|stream| stream.write_all(message).is_err()) {
            self.stream = None;
        }
    }

    /// Whether an answer came.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let heard = match (&self.socket, &mut self.stream) {
            (Some(socket), _) => uninterrupted(|| socket.recv(&mut bytes)),
            (None, Some(stream)) => stream.read(&mut bytes),
            (None, None) => return false,
        };
        match heard {
            Ok(count) if count > 0 => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => self.stream = None,
        }
        false
    }
}
