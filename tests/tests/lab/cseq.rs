//! FreeSWITCH numbers its requests beyond 2^31 when it has run for 249 days, and phones echo that: their answers pass, unless the profile is strict.

use anyhow::{Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{End, Server, sip, wait_until},
    guard::Site,
    sipp::{NOTIFIED, Order, Scenario, Transport},
};

const PHONES: u32 = 20;

/// The answer of a phone to a NOTIFY.
fn answer(number: u32) -> Vec<u8> {
    format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 10.77.0.1:5060;branch=z9hG4bK{number}\r\n\
         From: <sip:desk@sipguard.test>;tag=pbx\r\nTo: <sip:desk@sipguard.test>;tag=desk\r\nCall-ID: mwi-{number}\r\n\
         CSeq: {number} NOTIFY\r\nUser-Agent: Yealink SIP-T46S 66.85.0.5\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn phones_that_echo_a_cseq_beyond_2_to_the_31_are_not_cut() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let [pbx, _] = Site::PBX;
    let notifier =
        Order { local: Some(pbx.to_string()), ..Order::new(Scenario::Notifier, Transport::Tcp, "") };
    let notifier = notifier.start(&site.pbx)?;
    // Each over a connection of its own.
    let phones = Order {
        calls: PHONES,
        user: "desk".to_owned(),
        ..Order::new(Scenario::Subscriber, Transport::TcpPerCall, &sip(pbx).to_string())
    };
    phones.run(&site.phone)?.expect_all(PHONES)?;
    // The PBX compares each answer with what it has sent.
    notifier.stop()?.expect_all(PHONES)?;
    let messages = u64::from(PHONES) * (1 + NOTIFIED.len() as u64);
    wait_until("every message is counted", || Ok(site.guard.counted(Reason::Valid)? >= messages))?;
    ensure!(site.guard.counted(Reason::Valid)? == messages, "{:?}", site.guard.counter_rows()?);
    ensure!(site.guard.malformed()?.is_empty(), "{:?}", site.guard.malformed()?);
    site.guard.expect_nothing_stopped()
}

#[test]
fn the_strict_profile_refuses_what_it_says() -> Result<()> {
    let site = Site::guarded(true, &["--profile", "strict"])?;
    let guard = &site.guard;
    // Each of them is to be judged, whoever sent those before.
    guard.run(&["bans", "off"])?.expect(0)?;
    let said = guard.run(&["explain", "bad-number"])?.expect(0)?.stdout;
    ensure!(said.contains("Strict: CSeq above 2147483647"), "{said}");
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let highest = i32::MAX.unsigned_abs();
    let (phone, pbx) = server.connect(&site.phone)?;
    for number in [1, highest] {
        phone.write(&answer(number))?;
    }
    let passed = [answer(1), answer(highest)].concat();
    ensure!(pbx.wait_for(passed.len())? == passed, "another answer");
    for (refused, number) in NOTIFIED.into_iter().enumerate() {
        let (cut, cut_pbx) = server.connect(&site.phone)?;
        cut.offer(&answer(number))?;
        ensure!(cut_pbx.wait_for_end()? == End::Reset, "{number}: {:?}", cut_pbx.end());
        ensure!(cut_pbx.bytes().is_empty(), "{number} came through");
        cut.wait_until_refused()?;
        ensure!(guard.counted(Reason::BadNumber)? == refused as u64 + 1, "{:?}", guard.counter_rows()?);
    }
    // Whoever kept to it goes on.
    phone.write(&answer(highest))?;
    pbx.wait_for(passed.len() + answer(highest).len()).map(drop)
}
