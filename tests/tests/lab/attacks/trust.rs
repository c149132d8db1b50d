//! What a source that has proved itself may send, and who may take that from it.

use anyhow::Result;
use sipguard_tests::{
    envelope::Envelope,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{OPTIONS, bent},
    packet::ACK,
    segment::Segment,
    setting::Setting,
};

use super::stage::{Table, first, lab};

/// Well-formed messages after which a source is trusted, and some more.
const PROOF: usize = 150;
/// INVITEs at once: more than the defaults allow a source, and fewer than four times as many.
const INVITES: usize = 6000;
/// In one segment.
const TOGETHER: usize = 6;

fn invite() -> Vec<u8> {
    let invite = bent(OPTIONS, "CSeq: 1 OPTIONS", "CSeq: 1 INVITE");
    bent(&invite, "OPTIONS sip:pbx", "INVITE sip:pbx")
}

/// How many INVITEs at once are read of a source that has sent good messages before.
fn trusted(lab: &Lab, family: usize) -> Result<usize> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    for _ in 0..PROOF {
        sender.push(OPTIONS)?;
    }
    lab.settle()?;
    let before = witness.read()?.len();
    let (segment, mut sent) = (invite().repeat(TOGETHER), 0);
    while sent < INVITES {
        // As much as the application's buffer holds.
        for _ in 0..20 {
            sender.push(&segment)?;
            sent += TOGETHER;
        }
        lab.settle()?;
        if witness.read()?.len() < before + sent * invite().len() {
            break;
        }
    }
    Ok((witness.already_read() - before) / invite().len())
}

/// A segment of nobody's connection to the TLS port, from an address that nobody else has.
fn stray(lab: &Lab, family: usize) -> Result<()> {
    let from = if family == 0 { [10, 77, 0, 0x99].into() } else { [0xfd77, 0, 0, 0, 0, 0, 0, 0x99].into() };
    let envelope = Envelope::new(from, Site::PBX[family]);
    let mut segment = Segment::new(envelope, [40_000, 5061], 1, ACK).carrying(OPTIONS);
    segment.ack = 1;
    lab.wire.send(&segment.frame())?;
    lab.settle()
}

#[test]
fn a_stray_segment_takes_nobodys_trust() -> Result<()> {
    let mut table = Table::new("E12");
    for setting in Setting::tried()? {
        let (quiet, lab) = (lab(setting)?, lab(setting)?);
        for family in FAMILIES {
            let before = trusted(&quiet, family)?;
            stray(&lab, family)?;
            let after = trusted(&lab, family)?;
            let told = format!("{after} INVITEs at once, {before} without it");
            // Time alone makes some difference, and trust a greater one.
            let outcome =
                if after < INVITES && before >= INVITES { Err(anyhow::anyhow!(told)) } else { Ok(told) };
            table.row("a stray segment to port 5061, then trust is earned", setting, family, outcome);
        }
    }
    table.end()
}
