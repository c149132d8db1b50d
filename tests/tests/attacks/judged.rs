//! Whether a connection is judged at all, wherever the PBX is.

use anyhow::Result;
use sipguard_tests::{
    lab::{FAMILIES, Lab},
    message::{invite, negative_length, register},
    setting::Setting,
};

use crate::stage::{Table, expect_read, expect_refused, first, fresh};

/// Malformed at once, and behind good messages.
fn malformed(lab: &Lab, family: usize, before: &[u8]) -> Result<String> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    for bytes in [before, &negative_length().bytes] {
        bytes.chunks(100).try_for_each(|piece| sender.push(piece))?;
    }
    expect_refused(lab, &mut witness)
}

fn good(lab: &Lab, family: usize) -> Result<String> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    let sent = [register(1), invite(), register(2)].concat();
    sent.chunks(100).try_for_each(|piece| sender.push(piece))?;
    expect_read(lab, &mut witness, &sent)
}

#[test]
fn every_connection_is_judged() -> Result<()> {
    let mut table = Table::new("E3");
    for setting in Setting::ALL {
        let lab = fresh(setting)?;
        for family in FAMILIES {
            table.row("malformed, first since attach", setting, family, malformed(&lab, family, &[]));
            table.row("good", setting, family, good(&lab, family));
            table.row("malformed", setting, family, malformed(&lab, family, &[]));
            let after = malformed(&lab, family, &[register(1), invite()].concat());
            table.row("malformed behind good", setting, family, after);
        }
    }
    table.end()
}
