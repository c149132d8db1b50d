//! TCP is taken from all trunks, and then from all devices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sipguard_common::Reason;
use sipguard_tests::{
    application::{Connection, PATIENCE, wait_until},
    dial::{self, SOON},
    network::TRUNK,
    sipp::Transport,
};

use super::{Party, Stage, run};

/// Longer than it takes to deny and to look.
const HOLD: Duration = Duration::from_secs(20);

/// A connection on which an answer came.
fn standing(party: Party<'_>) -> Result<Connection> {
    let question = party.question(Transport::Tcp);
    let stream = dial::from(party.namespace, question.from, question.to, PATIENCE)?;
    let connection = Connection::record(stream.context("no connection")?)?;
    connection.write(&question.request())?;
    connection.wait_for(1)?;
    Ok(connection)
}

/// New connections of the one side are stopped, its UDP goes on, and the other side has both.
fn look(denied: Party<'_>, kept: Party<'_>) -> Result<()> {
    for (party, transport, answered) in [
        (denied, Transport::Tcp, false),
        (denied, Transport::Udp, true),
        (kept, Transport::Tcp, true),
        (kept, Transport::Udp, true),
    ] {
        let patience = if answered { PATIENCE } else { SOON };
        let is_answered = party.question(transport).is_answered(party.namespace, patience)?;
        ensure!(is_answered == answered, "{transport:?} from {}: answered is {is_answered}", party.seen);
    }
    Ok(())
}

/// A connection that stands is silent while TCP is denied; then TCP makes good what was lost.
fn permit(stage: &Stage, whom: &str, party: Party<'_>, connection: &Connection) -> Result<()> {
    let (guard, read) = (&stage.guard, connection.bytes());
    let before = guard.counted(Reason::TransportDenied)?;
    connection.write(&party.question(Transport::Tcp).request())?;
    wait_until("it is counted", || Ok(guard.counted(Reason::TransportDenied)? > before))?;
    ensure!(connection.bytes() == read, "an answer came by the connection that stands");
    let said = run(guard, &format!("permit tcp --from {whom}"))?;
    ensure!(said == format!("permitted to {whom}: tcp\n"), "it said {said}");
    connection.wait_for(read.len() + 1).map(drop)
}

/// Takes TCP from one side while both have calls, and gives it back.
fn deny_and_permit(stage: &Stage, whom: &str, denied: Party<'_>, kept: Party<'_>) -> Result<()> {
    let guard = &stage.guard;
    let connection = standing(denied)?;
    let made = |party: Party<'_>| stage.kamailio.calls("ACK", party.seen);
    let (made_denied, made_kept) = (made(denied)?, made(kept)?);
    let calls = [
        (kept.call(Transport::TcpPerCall, 10, HOLD)?, 10),
        (kept.call(Transport::Udp, 5, HOLD)?, 5),
        (denied.call(Transport::Udp, 5, HOLD)?, 5),
    ];
    kept.wait_for_calls(made_kept + 15)?;
    denied.wait_for_calls(made_denied + 5)?;
    let said = run(guard, &format!("deny tcp --from {whom}"))?;
    ensure!(said == format!("denied to {whom}: tcp\n"), "it said {said}");
    // At once: the calls last for HOLD, and on a busy machine the questions may take longer.
    let stand = [denied.calls()?, kept.calls()?];
    ensure!(stand == [5, 15], "{stand:?} calls stand");
    look(denied, kept)?;
    for (calls, count) in calls {
        calls.wait()?.expect_all(count)?;
    }
    permit(stage, whom, denied, &connection)?;
    let dropped = guard.counted(Reason::TransportDenied)?;
    println!(
        "transports: without TCP from {whom} 20 calls in progress were completed: 10 over TCP and 5 over UDP of the others, \
         5 over UDP of theirs; {dropped} packets dropped until now"
    );
    Ok(())
}

#[test]
fn trunks_lose_tcp_and_devices_keep_their_calls_and_the_reverse() -> Result<()> {
    let stage = Stage::new(Transport::Udp)?;
    run(&stage.guard, &format!("trunk add carrier --peer {TRUNK}"))?;
    deny_and_permit(&stage, "trunks", stage.trunk(), stage.office())?;
    deny_and_permit(&stage, "devices", stage.office(), stage.trunk())?;
    for party in [stage.office(), stage.trunk()] {
        for transport in [Transport::TcpPerCall, Transport::Udp] {
            party.call(transport, 5, Duration::from_millis(200))?.wait()?.expect_all(5)?;
        }
    }
    println!(
        "transports: all is permitted again, and 5 calls of each side over each transport were completed"
    );
    stage.expect_no_complaint()?;
    let malformed = stage.guard.malformed()?;
    ensure!(malformed.is_empty(), "counted as malformed: {malformed:?}");
    Ok(())
}
