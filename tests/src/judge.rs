//! What the loaded program says to a whole message, over TCP and over UDP. One program for all tests of a file, each of which
//! comes with addresses of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_common::abi::{Rule, rule_flags};
use sipguard_common::framer::Limits;

use crate::packet::{ACK, PSH, Peer, RST};
use crate::program::{PERMANENTLY, Program, Run, XDP_DROP, XDP_PASS};

/// Segments that a message is cut into, in bytes: as large as they get, those of a narrow link, and crumbs.
const CUTS: [usize; 3] = [60_000, 536, 23];
/// Segments of one message that the strict profile allows.
const PATIENCE: usize = 512;

/// Which profile judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// [`Limits::default`].
    Default,
    /// [`Limits::strict`].
    Strict,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It passed as it was.
    Passed,
    /// It passed as a TCP RST.
    Reset,
    /// It was dropped.
    Dropped,
}

/// Why, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The reason that was counted.
    pub reason: Reason,
    /// What became of the frame.
    pub end: End,
}

impl Verdict {
    /// Well-formed SIP.
    pub const VALID: Verdict = Verdict { reason: Reason::Valid, end: End::Passed };
}

/// The program of this process with a profile.
///
/// # Panics
/// When it can't be loaded.
pub fn program(profile: Profile) -> MutexGuard<'static, Program> {
    static PROGRAMS: [LazyLock<Mutex<Program>>; 2] = [
        LazyLock::new(|| Mutex::new(load(Limits::default()).expect("loading the program"))),
        LazyLock::new(|| Mutex::new(load(Limits::strict()).expect("loading the program"))),
    ];
    let program = &PROGRAMS[usize::from(profile == Profile::Strict)];
    // A test that failed left nothing behind but flows of its own addresses.
    program.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(limits: Limits) -> Result<Program> {
    let mut program = Program::new()?;
    program.change(|settings| settings.limits = limits)?;
    // Of nobody: no verdict may change while the kernel looks at identities and user agents.
    let blocked = Rule { flags: rule_flags::BLOCK, ..PERMANENTLY };
    program.identity("nobody@sipguard.test", blocked)?;
    program.user_agent("no user agent", blocked)?;
    Ok(program)
}

/// Two devices that no test has had, one of each address family.
#[must_use]
pub fn devices() -> [Peer; 2] {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [_, high, middle, low] = number.to_be_bytes();
    [
        Peer::new(&format!("10.{high}.{middle}.{low}:40000"), "198.51.100.1:5060"),
        Peer::new(&format!("[2001:db8::{number:x}]:40000"), "[2001:db8:1::1]:5060"),
    ]
}

/// What a stream comes to on new connections of both address families, in whatever segments: the first verdict that is not valid,
/// or the last.
///
/// # Errors
/// When one cut or address family is judged otherwise than another.
pub fn tcp(profile: Profile, bytes: &[u8]) -> Result<Verdict> {
    let mut verdicts = Vec::new();
    for cut in CUTS.into_iter().filter(|cut| bytes.len().div_ceil(*cut) <= PATIENCE) {
        for peer in devices() {
            let pieces: Vec<_> = bytes.chunks(cut).collect();
            verdicts.push((cut, connection(profile, &peer, &pieces)?));
        }
    }
    same(&verdicts)
}

/// What segments come to on a new connection: the first verdict that is not valid, or the last.
///
/// # Errors
/// When the program can't be run.
pub fn connection(profile: Profile, peer: &Peer, segments: &[&[u8]]) -> Result<Verdict> {
    let mut program = program(profile);
    program.connect(peer, 1000)?;
    let mut seq = 1000u32;
    let mut verdict = None;
    for segment in segments {
        let frame = peer.tcp(ACK | PSH, seq, segment);
        let run = program.run(&frame)?;
        let judged = Verdict { reason: run.reason, end: end(&frame, &run, Some(peer))? };
        verdict = Some(judged);
        if judged != Verdict::VALID {
            break;
        }
        seq = seq.wrapping_add(segment.len() as u32);
    }
    verdict.context("no segment")
}

/// What a datagram comes to, over both address families.
///
/// # Errors
/// When one address family is judged otherwise than the other.
pub fn udp(profile: Profile, payload: &[u8]) -> Result<Verdict> {
    let mut verdicts = Vec::new();
    for peer in devices() {
        verdicts.push((payload.len(), frame(profile, &peer.udp(payload))?));
    }
    same(&verdicts)
}

/// What a frame comes to that is no segment of a connection.
///
/// # Errors
/// When the program can't be run.
pub fn frame(profile: Profile, frame: &[u8]) -> Result<Verdict> {
    let run = program(profile).run(frame)?;
    Ok(Verdict { reason: run.reason, end: end(frame, &run, None)? })
}

fn end(sent: &[u8], run: &Run, peer: Option<&Peer>) -> Result<End> {
    ensure!(!run.let_pass, "monitor mode");
    match (run.action, peer) {
        (XDP_DROP, _) => Ok(End::Dropped),
        (XDP_PASS, _) if run.frame == sent => Ok(End::Passed),
        (XDP_PASS, Some(peer)) => {
            let at = peer.tcp_at();
            // Options and data stay as they are.
            let rest = at + 20;
            let reset = run.frame[at + 13] == RST | ACK && run.frame.get(rest..) == sent.get(rest..);
            ensure!(reset, "neither what was sent nor a reset: {run:?}");
            Ok(End::Reset)
        }
        _ => anyhow::bail!("what came of it is neither a drop nor what was sent: {run:?}"),
    }
}

fn same(verdicts: &[(usize, Verdict)]) -> Result<Verdict> {
    let (_, first) = *verdicts.first().context("no verdict")?;
    ensure!(verdicts.iter().all(|(_, verdict)| *verdict == first), "they differ: {verdicts:?}");
    Ok(first)
}

/// A stream is well-formed.
#[track_caller]
pub fn passes_tcp(profile: Profile, bytes: &[u8]) {
    expect(tcp(profile, bytes), Verdict::VALID, bytes);
}

/// A datagram is well-formed.
#[track_caller]
pub fn passes_udp(profile: Profile, bytes: &[u8]) {
    expect(udp(profile, bytes), Verdict::VALID, bytes);
}

/// A message is well-formed on either transport.
#[track_caller]
pub fn passes(profile: Profile, bytes: &[u8]) {
    passes_tcp(profile, bytes);
    passes_udp(profile, bytes);
}

/// A stream is refused: its connection is reset.
#[track_caller]
pub fn refused_tcp(profile: Profile, bytes: &[u8], reason: Reason) {
    expect(tcp(profile, bytes), Verdict { reason, end: End::Reset }, bytes);
}

/// A datagram is refused.
#[track_caller]
pub fn refused_udp(profile: Profile, bytes: &[u8], reason: Reason) {
    expect(udp(profile, bytes), Verdict { reason, end: End::Dropped }, bytes);
}

/// A message is refused on either transport.
#[track_caller]
pub fn refused(profile: Profile, bytes: &[u8], reason: Reason) {
    refused_tcp(profile, bytes, reason);
    refused_udp(profile, bytes, reason);
}

#[track_caller]
fn expect(judged: Result<Verdict>, expected: Verdict, bytes: &[u8]) {
    let shown = bytes[..bytes.len().min(600)].escape_ascii();
    match judged {
        Ok(verdict) => assert_eq!(verdict, expected, "{shown}"),
        Err(error) => panic!("{error:#}: {shown}"),
    }
}
