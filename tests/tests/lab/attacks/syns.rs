//! Damaged SYNs with another's address: its own are still answered.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sipguard_tests::{
    lab::{FAMILIES, FIRST, Lab},
    packet::{ACK, RST, SYN},
    segment::Answer,
    setting::Setting,
};

use super::stage::{Table, first, lab, unguarded};

/// SYNs of the victim, few beside what the defaults allow a source at once.
const OWN: u16 = 50;
/// Forged ones before the first of them, more than the defaults allow at once; and before each.
const AHEAD: usize = 6000;
const BESIDE: usize = 100;
const FIRST_PORT: u16 = 50_000;
/// How long an answer is waited for that is on its way already.
const SOON: Duration = Duration::from_secs(2);

/// Damaged SYNs of the victim's address.
fn forge(lab: &Lab, family: usize, count: usize) -> Result<()> {
    let mut sender = lab.sender(family, FIRST);
    let frame = |number: usize| {
        let mut syn = sender.syn();
        (syn.ports[0], syn.bad_checksum) = (1024 + (number % 40_000) as u16, true);
        syn.frame()
    };
    let frames: Vec<Vec<u8>> = (0..count).map(frame).collect();
    frames.chunks(100).try_for_each(|burst| {
        lab.wire.send_all(burst)?;
        lab.settle()
    })
}

/// Whether a SYN of the victim from this port is answered.
fn is_answered(lab: &Lab, family: usize, port: u16) -> Result<bool> {
    let mut sender = lab.sender(family, first());
    sender.ports[0] = port;
    let syn = sender.syn();
    sender.send(&syn)?;
    lab.settle()?;
    let wanted = |answer: &Answer| answer.flags & (SYN | ACK | RST) == SYN | ACK;
    let answered = sender.answer(Instant::now() + SOON, wanted)?.is_some();
    // The room for handshakes under way is the PBX's own affair.
    let mut reset = sender.bare(RST);
    reset.ack = 0;
    sender.send(&reset)?;
    Ok(answered)
}

/// Fails unless all of the victim's SYNs are answered, while others with its address come.
fn answered(lab: &Lab, family: usize, forged: bool) -> Result<String> {
    if forged {
        forge(lab, family, AHEAD)?;
    }
    for number in 0..OWN {
        if forged {
            forge(lab, family, BESIDE)?;
        }
        ensure!(is_answered(lab, family, FIRST_PORT + number)?, "SYN {number} was not answered");
    }
    Ok(format!("{OWN} SYNs answered"))
}

#[test]
fn forged_syns_take_nobodys_budget() -> Result<()> {
    let mut table = Table::new("E6");
    for setting in Setting::tried()? {
        let (lab, bare) = (lab(setting)?, unguarded(setting)?);
        for family in FAMILIES {
            table.row("damaged SYNs, without a guard", setting, family, answered(&bare, family, true));
            table.row("no others", setting, family, answered(&lab, family, false));
            table.row("damaged SYNs of the same address", setting, family, answered(&lab, family, true));
        }
    }
    table.end()
}
