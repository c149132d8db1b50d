//! Segments with a wrong checksum, which the kernel throws away.

use anyhow::{Result, ensure};
use sipguard_tests::{
    envelope::Envelope,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{negative_length, register},
    packet::SYN,
    segment::Segment,
    setting::Setting,
    witness::Witness,
};

use super::stage::{Table, expect_judged, expect_read, expect_refused, first, lab};

/// Sends each piece of `evil` behind a damaged one of `good`, of the same place and length.
fn in_pairs(lab: &Lab, family: usize, size: usize, good: &[u8], evil: &[u8]) -> Result<Witness> {
    let (mut sender, witness) = lab.connect(family, first())?;
    for (good, evil) in good.chunks(size).zip(evil.chunks(size)) {
        let mut damaged = sender.segment(&good[..evil.len()]);
        damaged.bad_checksum = true;
        sender.send(&damaged)?;
        sender.push(evil)?;
    }
    Ok(witness)
}

#[test]
fn a_damaged_good_segment_before_each_evil_one() -> Result<()> {
    let mut table = Table::new("E30");
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            let (good, evil) = (register(1), negative_length().bytes);
            ensure!(evil.len() < good.len(), "each evil byte needs a good one");
            for size in [1, 2, 7, 50] {
                let outcome = in_pairs(&lab, family, size, &good, &evil)
                    .and_then(|mut witness| expect_judged(&lab, &mut witness));
                table.row(&format!("damaged good, then evil, {size} B each"), setting, family, outcome);
                // As a bad wire does it to a good device.
                let outcome = in_pairs(&lab, family, size, &good, &good)
                    .and_then(|mut witness| expect_read(&lab, &mut witness, &good));
                table.row(&format!("damaged good, then the same, {size} B each"), setting, family, outcome);
            }
        }
    }
    table.end()
}

/// Half of them before a handshake that is under way, half behind it: each half is more than the guard ever kept in mind.
const OTHERS: u32 = 40_000;

/// SYNs of others, each a source of its own.
fn syns(family: usize, damaged: bool) -> Vec<Vec<u8>> {
    let frame = |number: u32| {
        let [_, a, b, c] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
        let from = match family {
            0 => [198, 18 | (a & 1), b, c].into(),
            _ => [0xfd98, u16::from(a), u16::from(b), u16::from(c), 0, 0, 0, 1].into(),
        };
        let envelope = Envelope::new(from, Site::PBX[family]);
        let mut syn = Segment::new(envelope, [1024 + (number >> 4) as u16, 5060], 1000, SYN);
        (syn.options, syn.bad_checksum) = (vec![2, 4, 5, 0xb4], damaged);
        syn.frame()
    };
    (0..OTHERS).map(frame).collect()
}

/// What is answered of a flood goes to the device, which does not care.
fn route_to_device(lab: &Lab, setting: Setting) -> Result<()> {
    let machine = if setting == Setting::Bridge { lab.pbx() } else { &lab.site.pbx };
    machine.run(&["ip", "route", "replace", "198.18.0.0/15", "via", "10.77.0.102"])?;
    machine.run(&["ip", "-6", "route", "replace", "fd98::/16", "via", "fd77::66"]).map(drop)
}

/// Connections that begin before a flood and in it, and whose first bytes come after it.
fn beside(lab: &Lab, family: usize, flood: &[Vec<u8>]) -> Result<[Result<String>; 2]> {
    let mut open = vec![];
    for half in flood.chunks(flood.len() / 2) {
        open.push([lab.connect(family, first())?, lab.connect(family, first())?]);
        for burst in half.chunks(100) {
            lab.wire.send_all(burst)?;
            lab.settle()?;
        }
    }
    let (mut evil, mut good) = (vec![], vec![]);
    for [(mut bad, mut read), (mut sender, mut witness)] in open {
        bad.push(&negative_length().bytes)?;
        evil.push(expect_refused(lab, &mut read));
        sender.push(&register(1))?;
        good.push(expect_read(lab, &mut witness, &register(1)));
    }
    let told =
        |all: Vec<Result<String>>| all.into_iter().collect::<Result<Vec<_>>>().map(|all| all.join("; "));
    Ok([told(evil), told(good)])
}

#[test]
fn a_flood_of_syns_makes_no_connection_unjudged() -> Result<()> {
    let mut table = Table::new("E4");
    let labs = Setting::tried()?.into_iter().map(|setting| Ok((setting, lab(setting)?)));
    let labs = labs.collect::<Result<Vec<_>>>()?;
    for family in FAMILIES {
        for (kind, damaged) in [("damaged", true), ("good", false)] {
            let flood = syns(family, damaged);
            for (setting, lab) in &labs {
                route_to_device(lab, *setting)?;
                let [evil, good] = beside(lab, family, &flood)?;
                table.row(&format!("{OTHERS} {kind} SYNs, then malformed"), *setting, family, evil);
                table.row(&format!("{OTHERS} {kind} SYNs, then good"), *setting, family, good);
            }
        }
    }
    table.end()
}
