//! Clients of other services whose port is by chance one of SIP's: a NAT gives any.

use std::{io::Write as _, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use sipguard_tests::{
    application::{PATIENCE, Server, udp, uninterrupted},
    callee::Call,
    envelope::datagram,
    lab::{FAMILIES, Lab},
    setting::Setting,
    witness::Witness,
};

use super::stage::{Table, expect_read, first, lab};

const HTTP: &[u8] = b"GET /phone.cfg HTTP/1.1\r\nHost: pbx\r\nUser-Agent: Phone\r\n\r\nPUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\0\x01\xff\n";
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n\0\x01\xff";
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0\x05\xdc\x07\x14\x9a\0\0\xff";

/// A client hello and application data, each a record.
fn tls() -> Vec<u8> {
    [&[22, 3, 1, 0, 44, 1, 0, 0, 40][..], &[7; 40], &[23, 3, 3, 0, 100], &[0x5a; 100]].concat()
}

/// What the PBX is answered over TLS: a server hello and application data.
fn tls_answer() -> Vec<u8> {
    [&[22, 3, 3, 0, 44, 2, 0, 0, 40][..], &[9; 40], &[23, 3, 3, 0, 200], &[0xa5; 200]].concat()
}

/// A client at a port of SIP says something to a service.
fn client(lab: &Lab, family: usize, service: &Server, ports: [u16; 2], says: &[u8]) -> Result<String> {
    let mut sender = lab.sender(family, first());
    sender.ports = ports;
    sender.shake_hands_anew()?;
    let mut witness = Witness::new(service.accept()?)?;
    says.chunks(30).try_for_each(|piece| sender.push(piece))?;
    expect_read(lab, &mut witness, says)
}

/// Fifty packets of voice.
fn voice(lab: &Lab, family: usize, from: u16) -> Result<String> {
    const PACKETS: u16 = 50;
    const TO: u16 = 10_000;
    let application = udp(lab.pbx(), (lab.address(family), TO))?;
    application.set_read_timeout(Some(PATIENCE))?;
    let envelope = lab.sender(family, 0).envelope;
    let mut read = [0; 2000];
    for number in 0..PACKETS {
        let head = [&[0x80, 0][..], &number.to_be_bytes(), &[0; 4], &[1, 2, 3, 4]].concat();
        let packet = [&head[..], &[0xd5; 160]].concat();
        lab.wire.send(&datagram(&envelope, from, TO, &packet))?;
        // Each is read before the next one is sent: behind native XDP on a veth, Linux 6.1 counts a page for each of them, and a
        // receive buffer of usual size holds 49.
        let bytes = uninterrupted(|| application.recv(&mut read))
            .with_context(|| format!("packet {number} of {PACKETS}"))?;
        ensure!(read[..bytes] == packet, "packet {number} was read as {:?}", &read[..bytes]);
    }
    Ok(format!("{PACKETS} packets read"))
}

/// The PBX asks a service of somebody else's, from a port of SIP; it is answered.
fn request(lab: &Lab, family: usize, ports: [u16; 2], asks: &[u8], answer: &[u8]) -> Result<String> {
    let [local, remote] = ports;
    let (mut sender, mut witness) = Call::begin(lab, family, local, remote, first())?.answer()?;
    witness.stream().write_all(asks).context("asking")?;
    sender.ack = sender.ack.wrapping_add(asks.len() as u32);
    answer.chunks(60).try_for_each(|piece| sender.push(piece))?;
    expect_read(lab, &mut witness, answer)
}

#[test]
fn other_services_and_ports_of_sip() -> Result<()> {
    let (mut table, mut voices) = (Table::new("E9"), Table::new("F2"));
    for setting in Setting::tried()? {
        let lab = lab(setting)?;
        for family in FAMILIES {
            for (name, to, says) in [("HTTPS", 443, &tls()[..]), ("HTTP", 443, HTTP), ("SSH", 22, SSH)] {
                let service = Server::listen(lab.pbx(), SocketAddr::new(lab.address(family), to))?;
                for from in [5060, 5061] {
                    let outcome = client(&lab, family, &service, [from, to], says);
                    table.row(&format!("{name} from port {from} to {to}"), setting, family, outcome);
                }
            }
            for (name, asks, answer) in
                [("HTTPS", tls(), tls_answer()), ("HTTP", HTTP.to_vec(), HTTP_ANSWER.to_vec())]
            {
                let outcome = request(&lab, family, [5061, 443], &asks, &answer);
                table.row(&format!("{name} of the PBX from port 5061 to 443"), setting, family, outcome);
            }
            for from in [5060, 5061] {
                let outcome = voice(&lab, family, from);
                voices.row(&format!("RTP from port {from} to 10000"), setting, family, outcome);
            }
        }
    }
    table.end().and(voices.end())
}
