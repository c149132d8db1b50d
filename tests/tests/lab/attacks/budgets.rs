//! What datagrams with a forged address take from the connections of that address.

use anyhow::Result;
use sipguard_tests::{
    envelope::{Envelope, datagram},
    guard::Site,
    lab::{DEVICE, FAMILIES, Lab},
    message::register,
    setting::Setting,
};

use super::stage::{Table, expect_read, first, lab};

/// More registrations than the defaults allow a source at once.
const FORGED: usize = 8000;

fn registers(lab: &Lab, family: usize) -> Result<String> {
    let (mut sender, mut witness) = lab.connect(family, first())?;
    let envelope = Envelope::new(DEVICE[family], Site::PBX[family]);
    let frame = |number| datagram(&envelope, 5062, 5060, &register(number));
    let flood = |numbers: std::ops::Range<usize>| {
        let frames: Vec<_> = numbers.map(frame).collect();
        frames.chunks(100).try_for_each(|burst| lab.wire.send_all(burst).and_then(|()| lab.settle()))
    };
    flood(0..FORGED)?;
    let mut sent = vec![];
    for number in 0..50 {
        flood(0..100)?;
        sent.extend_from_slice(&register(number));
        sender.push(&register(number))?;
        expect_read(lab, &mut witness, &sent)?;
    }
    Ok(witness.to_string())
}

#[test]
fn forged_datagrams_take_nothing_from_connections() -> Result<()> {
    let mut table = Table::new("UDP");
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            let technique = "REGISTER by forged datagrams, beside those of a connection";
            table.row(technique, setting, family, registers(&lab, family));
        }
    }
    table.end()
}
