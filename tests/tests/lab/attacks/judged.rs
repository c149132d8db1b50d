//! Whether a connection is judged at all, wherever the PBX is and however it begins.

use std::fs;

use anyhow::{Context as _, Result};
use sipguard_tests::{
    lab::{FAMILIES, Lab},
    message::{invite, negative_length, register},
    setting::Setting,
    witness::Witness,
};

use super::stage::{Table, expect_read, expect_refused, first, fresh};

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
enum Beginning {
    /// SYN, ACK, data.
    Plain,
    /// The first data come with the ACK that ends the handshake, or that one was lost.
    DataWithAck,
    /// The device did not hear the first answer.
    SynTwice,
    /// The device did hear it, and a SYN comes late.
    LateSyn,
    /// The PBX remembers nothing of the handshake (SYN cookies).
    Cookie,
}

const BEGINNINGS: [Beginning; 5] =
    [Beginning::Plain, Beginning::DataWithAck, Beginning::SynTwice, Beginning::LateSyn, Beginning::Cookie];

/// A connection on which something was sent.
fn connect(lab: &Lab, family: usize, how: Beginning, sent: &[u8], size: usize) -> Result<Witness> {
    let cookies = if matches!(how, Beginning::Cookie) { "2" } else { "1" };
    lab.pbx().enter(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", cookies))?.context("a setting")?;
    let mut sender = lab.sender(family, first());
    let syn = sender.syn();
    sender.send(&syn)?;
    sender.take_answer()?;
    if matches!(how, Beginning::SynTwice) {
        lab.settle()?;
        sender.send(&syn)?;
        lab.settle()?;
    }
    if !matches!(how, Beginning::DataWithAck) {
        let ack = sender.segment(&[]);
        sender.send(&ack)?;
    }
    if matches!(how, Beginning::LateSyn) {
        sender.send(&syn)?;
    }
    sent.chunks(size).try_for_each(|piece| sender.push(piece))?;
    let witness = lab.accept(family)?;
    lab.settle()?;
    Ok(witness)
}

/// Malformed behind good messages. Its first segment is good, or there might be no connection to look at.
fn malformed(lab: &Lab, family: usize, how: Beginning, before: &[u8]) -> Result<String> {
    let sent = [before, &negative_length().bytes].concat();
    let mut witness = connect(lab, family, how, &sent, 40)?;
    expect_refused(lab, &mut witness)
}

fn good(lab: &Lab, family: usize, how: Beginning) -> Result<String> {
    let sent = [register(1), invite(), register(2)].concat();
    let mut witness = connect(lab, family, how, &sent, 100)?;
    expect_read(lab, &mut witness, &sent)
}

#[test]
fn every_connection_is_judged() -> Result<()> {
    let mut table = Table::new("E3");
    for setting in Setting::tried()? {
        let lab = fresh(setting)?;
        for family in FAMILIES {
            let plain = Beginning::Plain;
            let outcome = malformed(&lab, family, plain, &[]);
            table.row("malformed, first of the family since attach", setting, family, outcome);
            for how in BEGINNINGS {
                table.row(&format!("good, {how:?}"), setting, family, good(&lab, family, how));
                let outcome = malformed(&lab, family, how, &[]);
                table.row(&format!("malformed, {how:?}"), setting, family, outcome);
                let outcome = malformed(&lab, family, how, &[register(1), invite()].concat());
                table.row(&format!("malformed behind good, {how:?}"), setting, family, outcome);
            }
        }
    }
    table.end()
}
