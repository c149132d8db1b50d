//! The picture of the documents: the live screen in the night of an incident. It is another one each time, so it is kept where that is asked for.

use std::path::Path;

use anyhow::Result;
use sipguard_tests::application::{Server, sip, wait_until};
use sipguard_tests::browser::{Browser, View};
use sipguard_tests::guard::Site;
use sipguard_tests::message::OPTIONS;
use sipguard_tests::scratch::Scratch;

use super::picture::{pixels, svg};
use super::pty::Pty;
use super::run;
use crate::dashboard::scene::{AGENT, ERRANT, addresses, datagram, faulty, reconnect};

const SIZE: (u16, u16) = (150, 30);

#[test]
fn the_picture_of_the_documents_is_of_a_phone_that_reconnects() -> Result<()> {
    let (site, scratch) = (Site::guarded(true, &[])?, Scratch::new("top")?);
    let guard = &site.guard;
    addresses(&site, &[ERRANT, "10.77.0.9", "10.77.0.31", "10.77.0.66"])?;
    run(guard, "bans off")?;
    run(guard, "trunk add carrier --peer 10.77.0.9")?;
    run(guard, "block 10.77.0.66 --for 1h --comment scanner")?;
    let server = Server::listen(&site.pbx, sip(Site::PBX[0]))?;
    let mut pty = Pty::start(guard, &["top", "-d", "0.5"], SIZE)?;
    for number in 0..16 {
        reconnect(&site, &server, ERRANT, &faulty(number))?;
        for (from, message) in [("10.77.0.66", OPTIONS), ("10.77.0.31", OPTIONS), ("10.77.0.9", OPTIONS)] {
            datagram(&site, from, message)?;
        }
        if number % 5 == 0 {
            datagram(&site, "10.77.0.9", b"NO SENSE\r\n\r\n")?;
        }
        // Bars are of what came at different times.
        std::thread::sleep(std::time::Duration::from_millis(120));
    }
    let command = format!("sipguard block {ERRANT}");
    let is_whole = |shown: &str| {
        let words = [command.as_str(), AGENT, "X-Serial", "16   ", "REGISTER sip:"];
        words.iter().all(|word| shown.contains(word))
    };
    let screen = pty.wait("all of it is seen", is_whole)?;
    pty.press("q")?;
    pty.expect_end()?;
    let drawn = scratch.write("top.svg", &svg(&screen, ["#101418", "#d8dee4"]))?;
    let mut browser = Browser::new(&site.pbx)?;
    browser.view(View { size: pixels(SIZE), dark: true })?;
    browser.open(&format!("file://{}", drawn.display()))?;
    let path = if std::env::var_os("SIPGUARD_WRITE_DOCS").is_some() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/top.png")
    } else {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("top.png")
    };
    // A file is shown by another process of the browser, which has to begin first.
    wait_until("the picture is drawn", || Ok(browser.window(&path).is_ok()))
}
