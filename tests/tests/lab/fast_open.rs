//! TCP Fast Open (RFC 7413) between real kernels: the first bytes come with the SYN, and are judged all the same.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::libc::{IPPROTO_TCP, MSG_FASTOPEN, TCP_FASTOPEN};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, sendto, socket};
use sipguard_common::Reason;
use sipguard_tests::application::{Connection, Server, expect_same, sip};
use sipguard_tests::guard::Site;
use sipguard_tests::message::{OPTIONS, negative_length};
use sipguard_tests::netns::Netns;
use sipguard_tests::wire::option;

/// Client and server without cookies.
const WITHOUT_COOKIES: &str = "1543";

/// A connection of which the first bytes leave with the SYN.
fn dial(from: &Netns, to: SocketAddr, bytes: &[u8]) -> Result<TcpStream> {
    from.enter(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let phone = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let flags = MsgFlags::from_bits_retain(MSG_FASTOPEN);
        let sent = sendto(phone.as_raw_fd(), bytes, &SockaddrStorage::from(to), flags)?;
        ensure!(sent == bytes.len(), "{sent} bytes were taken");
        Ok(TcpStream::from(phone))
    })?
}

#[test]
fn bytes_that_come_with_a_syn() -> Result<()> {
    let site = Site::new(true)?;
    for machine in [&site.pbx, &site.phone] {
        machine
            .enter(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", WITHOUT_COOKIES))?
            .context("a setting")?;
    }
    for (guarded, address) in [(false, Site::PBX[0]), (true, Site::PBX[0]), (true, Site::PBX[1])] {
        if guarded && address == Site::PBX[0] {
            site.guard.attach(&[Site::INTERFACE])?;
        }
        let server = Server::listen(&site.pbx, sip(address))?;
        option(&server, IPPROTO_TCP, TCP_FASTOPEN, 16)?;
        for (sent, read) in [(OPTIONS.to_vec(), true), (negative_length().bytes, !guarded)] {
            let phone = Connection::record(dial(&site.phone, sip(address), &sent)?)?;
            if read {
                let application = Connection::record(server.accept()?)?;
                expect_same(&application.wait_for(sent.len())?, &sent)?;
            } else {
                // Reset by the segment that would have opened the connection: nobody has one to accept.
                phone.wait_for_end()?;
                ensure!(server.try_accept()?.is_none(), "there is a connection");
            }
        }
    }
    let opened =
        site.phone.run(&["nstat", "-az", "TcpExtTCPFastOpenActive", "TcpExtTCPFastOpenActiveFail"])?;
    println!("{opened}");
    ensure!(site.guard.counted(Reason::SynData)? == 0, "a SYN was dropped");
    Ok(())
}
