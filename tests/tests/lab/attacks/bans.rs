//! What malformed connections bring upon the other transport of the same address and port.

use anyhow::{Context as _, Result};
use sipguard_tests::{
    application::{expect_same, udp, uninterrupted},
    envelope::datagram,
    lab::{FAMILIES, Lab},
    message::{OPTIONS, negative_length, register},
    setting::Setting,
};

use super::stage::{Table, lab};

/// More malformed connections than make a ban; a phone over UDP has the same address and port.
fn over_udp(lab: &Lab, family: usize) -> Result<String> {
    let application = udp(lab.pbx(), (lab.address(family), 5060))?;
    application.set_nonblocking(true)?;
    let (envelope, port) = {
        let sender = lab.sender(family, 0);
        (sender.envelope.clone(), sender.ports[0])
    };
    let read = |what: &str, sent: &[u8]| {
        lab.wire.send(&datagram(&envelope, port, 5060, sent))?;
        lab.settle()?;
        let mut bytes = [0; 2000];
        let length = uninterrupted(|| application.recv(&mut bytes))
            .with_context(|| format!("nothing is read {what}"))?;
        expect_same(&bytes[..length], sent)
    };
    read("before", OPTIONS)?;
    for number in 0..3 {
        let mut sender = lab.sender(family, 1_000_000 * (number + 1));
        sender.ports[0] = port;
        sender.shake_hands_anew()?;
        let _application = lab.accept(family)?;
        sender.push(&negative_length().bytes)?;
        lab.settle()?;
    }
    for number in 1..20 {
        read("afterwards", &register(number))?;
    }
    Ok("20 datagrams read".to_owned())
}

#[test]
fn malformed_connections_take_nothing_from_udp() -> Result<()> {
    let mut table = Table::new("E17");
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            let technique = "three malformed connections, then UDP of their port";
            table.row(technique, setting, family, over_udp(&lab, family));
        }
    }
    table.end()
}
