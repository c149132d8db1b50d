use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::super::{AddFeed, HttpAnswer, USUAL_KEEP, add, list, stored};
use super::*;
use crate::feed::FeedSource;

/// A store in a directory of the test, and nothing attached.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> (Place, Context) {
        let place = std::env::temp_dir().join(format!("sipguard-feed-{name}-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let host = Context::new(place.join("pins"), place.join("sipguard.db"));
        (Place(place), host)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn request(form: FeedForm) -> AddFeed {
    AddFeed {
        name: "drop".to_owned(),
        source: FeedSource::parse("https://lists.example").unwrap(),
        form,
        every: None,
        keep: USUAL_KEEP,
        key_file: (form == FeedForm::Crowdsec).then(|| "/proc/sys/kernel/ostype".into()),
        force: false,
    }
}

fn known(force: bool, is_known: bool) -> Refresh<'static> {
    Refresh { name: "drop", force, is_known }
}

fn answer(body: String) -> Result<HttpAnswer> {
    Ok(HttpAnswer { status: 200, body })
}

fn forty() -> Result<HttpAnswer> {
    answer((0..40).map(|number| format!("203.0.113.{number}\n")).collect())
}

const MOST: u32 = MOST_ENTRIES as u32;

fn decision(number: u32) -> String {
    let address = std::net::Ipv4Addr::from(0x0b00_0000 + number);
    format!(r#"{{"duration":"4h","scope":"Ip","type":"ban","value":"{address}"}}"#)
}

fn stream(new: std::ops::Range<u32>, gone: &str) -> Result<HttpAnswer> {
    let new: Vec<String> = new.map(decision).collect();
    answer(format!(r#"{{"new":[{}],"deleted":[{gone}]}}"#, new.join(",")))
}

#[test]
fn a_reading_that_ends_its_process_is_known_to_the_next_one() {
    let (_place, host) = Place::new("begun");
    let good: Fetch = |_| forty();
    let kills: Fetch = |_| panic!("as if the process ended");
    let fails: Fetch = |_| anyhow::bail!("no route");
    let state = || {
        let feed = stored(&host).unwrap().remove(0);
        (feed.unfinished, feed.tried_ms, feed.failure)
    };
    add(&host, request(FeedForm::List), Some(good)).unwrap();
    let (unfinished, added_ms, _) = state();
    assert_eq!(unfinished, 0);
    let die = |is_known| {
        let reading = || refresh(&host, &known(false, is_known), Some(kills));
        assert!(catch_unwind(AssertUnwindSafe(reading)).is_err());
    };
    die(false);
    assert_eq!((state().0, state().1 >= added_ms), (1, true));
    die(false);
    assert_eq!(state().0, 2);
    // Who has read it to an end, and wrote down a moment ago that it reads, writes nothing.
    die(true);
    assert_eq!(state().0, 2);
    refresh(&host, &known(false, false), Some(fails)).unwrap_err();
    assert_eq!((state().0, state().2.as_str()), (0, "no route"));
    die(false);
    refresh(&host, &known(false, false), Some(good)).unwrap();
    assert_eq!((state().0, state().2.as_str()), (0, ""));
}

#[test]
fn a_stream_of_decisions_has_no_more_than_a_feed_may_have() {
    let (_place, host) = Place::new("cap");
    let fetch: Fetch = |request| match request.url.ends_with("=true") {
        true => stream(0..MOST - 1, ""),
        // One goes, and of three one has no room.
        false => stream(MOST..MOST + 3, &decision(0)),
    };
    let entries = || list(&host).unwrap()[0].entries;
    let done = add(&host, request(FeedForm::Crowdsec), Some(fetch)).unwrap();
    assert_eq!((done.left_out, done.is_whole, entries()), (0, true, MOST_ENTRIES - 1));
    let done = refresh(&host, &known(false, true), Some(fetch)).unwrap();
    let counts = done.change.counts;
    assert_eq!((counts.added, counts.removed, done.left_out, entries()), (2, 1, 1, MOST_ENTRIES));
    let more: Fetch = |_| stream(2 * MOST..2 * MOST + 1000, "");
    let done = refresh(&host, &known(false, true), Some(more)).unwrap();
    assert_eq!((done.change.counts.added, done.left_out, entries()), (0, 1000, MOST_ENTRIES));
}

#[test]
fn an_absurd_change_names_the_way_that_takes_it() {
    let (_place, host) = Place::new("absurd");
    let (good, short): (Fetch, Fetch) = (|_| forty(), |_| answer("203.0.113.1\n".to_owned()));
    add(&host, request(FeedForm::List), Some(good)).unwrap();
    let said = |outcome: Result<FeedRefreshed>| format!("{:#}", outcome.unwrap_err());
    let of_add = said(add(&host, request(FeedForm::List), Some(short)));
    assert!(
        of_add.ends_with("nothing was changed; `--force` behind the same `feed add` takes it"),
        "{of_add}"
    );
    let of_refresh = said(refresh(&host, &known(false, false), Some(short)));
    assert!(of_refresh.ends_with("; `sipguard feed refresh drop --force` takes it"), "{of_refresh}");
    let forced = AddFeed { force: true, ..request(FeedForm::List) };
    let counts = add(&host, forced, Some(short)).unwrap().change.counts;
    assert_eq!((counts.removed, counts.same), (39, 1));
}
