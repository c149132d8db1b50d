//! A limit of open connections that only counts.

use super::*;

#[test]
fn what_is_over_it_is_counted_and_passes_until_the_limit_stops() -> Result<()> {
    let site = Site::guarded(true, &[])?;
    let guard = &site.guard;
    let ([pbx, _], [phone, _]) = (Site::PBX, Site::PHONE);
    let server = Server::listen(&site.pbx, sip(pbx))?;
    let said = run(guard, "limit set --of open 2 --monitor")?;
    ensure!(
        said == "limited open for devices: 2 at once monitor; what is over it passes, and `sipguard counters` has it as open-connections \
                 with would-drop\n",
        "it said {said}"
    );
    let mut ends = open(&site, &server, phone, pbx, 5)?;
    let over = |action: &str| -> Result<u64> {
        let rows = guard.counter_rows()?;
        let of = |row: &&Counter| row.reason == Reason::OpenConnections.name() && row.action == action;
        Ok(rows.iter().filter(of).map(|row| row.packets).sum())
    };
    ensure!(over("would-drop")? == 3 && over("drop")? == 0, "{:?}", guard.counters()?);
    let rows = limits(guard)?;
    ensure!(rows[0]["mode"] == "monitor" && rows[0]["open"] == 5, "{rows:?}");
    // The limit of its trunk is another one, and stops.
    run(guard, "trunk add carrier --peer 10.77.0.2")?;
    run(guard, "limit set --trunk carrier --of open 1")?;
    let of_trunk = open(&site, &server, phone, pbx, 1)?;
    expect_refused(&site, phone, pbx)?;
    run(guard, "limit set --trunk carrier --of open 1 --monitor")?;
    let more = open(&site, &server, phone, pbx, 1)?;
    ensure!(over("would-drop")? == 4, "{:?}", guard.counters()?);
    drop((of_trunk, more));
    run(guard, "trunk remove carrier")?;
    run(guard, "limit set --of open 2")?;
    expect_refused(&site, phone, pbx)?;
    // What stands goes on.
    let (phone, pbx) = ends.last_mut().context("five")?;
    phone.write_all(OPTIONS)?;
    Ok(pbx.read_exact(&mut vec![0; OPTIONS.len()])?)
}
