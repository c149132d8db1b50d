use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

/// How long what does not wait may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn answer(status: u16, body: &str) -> HttpAnswer {
    HttpAnswer { status, body: body.to_owned() }
}

fn feed(source: &str, form: FeedForm, key_file: Option<PathBuf>) -> FeedRow {
    FeedRow {
        name: "drop".to_owned(),
        source: FeedSource::parse(source).unwrap(),
        form,
        every: PATIENCE,
        keep: PATIENCE,
        key_file,
        author: String::new(),
        created_ms: 0,
        tried_ms: None,
        refreshed_ms: None,
        whole_ms: None,
        failure: String::new(),
        unfinished: 0,
    }
}

/// Why it can't be read, by a client that gives always the same.
fn why(feed: &FeedRow, fetch: Fetch) -> String {
    format!("{:#}", read(feed, true, Some(fetch), 0).map(|_| ()).unwrap_err())
}

/// What it gives, unless it waits for something.
fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, done) = channel();
    thread::spawn(move || send.send(work()));
    done.recv_timeout(PATIENCE).expect("it waits")
}

/// A FIFO that nobody writes to, and that is removed at the end.
struct Fifo(PathBuf);

impl Fifo {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sipguard-{name}-{}", std::process::id()));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        Self(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn apiban_is_followed_to_its_end() {
    let get = |url: &str| {
        Ok(match url {
            "https://x/api/KEY/banned" => {
                answer(200, r#"{"ipaddress":["203.0.113.7","203.0.113.8"],"ID":"10"}"#)
            }
            "https://x/api/KEY/banned/10" => answer(200, r#"{"ipaddress":["203.0.113.9"],"ID":"11"}"#),
            "https://x/api/KEY/banned/11" => answer(400, r#"{"ipaddress":["no new bans"],"ID":"none"}"#),
            _ => bail!("asked for {url}"),
        })
    };
    assert_eq!(pages("https://x/api/KEY/banned/", &get, PATIENCE).unwrap().len(), 3);
    let endless = |_: &str| Ok(answer(200, r#"{"ipaddress":["203.0.113.7"],"ID":"1"}"#));
    assert!(pages("https://x", &endless, Duration::MAX).unwrap_err().to_string().contains("no end"));
    let refused = |_: &str| Ok(answer(400, "bad request"));
    assert!(pages("https://x", &refused, PATIENCE).unwrap_err().to_string().contains("answers 400"));
}

#[test]
fn pages_end_with_their_time() {
    let asked = std::cell::Cell::new(0);
    let most = Duration::from_millis(20);
    let begin = Instant::now();
    let slow = |_: &str| {
        asked.set(asked.get() + 1);
        // A server that answers when the time is over.
        while begin.elapsed() < most {
            thread::yield_now();
        }
        Ok(answer(200, r#"{"ipaddress":["203.0.113.7"],"ID":"1"}"#))
    };
    let said = pages("https://x", &slow, most).unwrap_err().to_string();
    assert_eq!((said.as_str(), asked.get()), ("its pages take longer than 0 s", 1));
}

#[test]
fn neither_a_pipe_nor_a_device_is_waited_for() {
    let fifo = Fifo::new("feed");
    for path in [fifo.0.to_string_lossy().into_owned(), "/dev/zero".to_owned(), "/dev".to_owned()] {
        for form in [FeedForm::List, FeedForm::Apiban] {
            let feed = feed(&path, form, None);
            let said = at_once(move || why(&feed, |_| bail!("it asks for a file")));
            assert_eq!(said, format!("{path} is no regular file"));
        }
        let with_key = feed("https://x/", FeedForm::List, Some(path.clone().into()));
        let said = at_once(move || why(&with_key, |_| bail!("it asks without a key")));
        assert_eq!(said, format!("{path} is no regular file"));
    }
}

#[test]
fn what_is_wrong_is_told_shortly_and_without_control_characters() {
    let of = |form, fetch: Fetch| {
        let key = (form == FeedForm::Crowdsec).then(|| "/proc/sys/kernel/ostype".into());
        why(&feed("https://lists.example/drop.txt", form, key), fetch)
    };
    let long: Fetch = |_| Ok(answer(200, &"\u{1b}[2J\u{7}\u{9b}".repeat(2_000_000)));
    let one: Fetch = |_| Ok(answer(200, "203.0.113.7\n\u{1b}]0;title\u{7}\n"));
    let id: Fetch = |_| Ok(answer(200, "{\"ipaddress\":[],\"ID\":\"\\u001b[2J\"}"));
    let address: Fetch = |_| Ok(answer(200, "{\"ipaddress\":[\"\\u001b[2J\\n\"],\"ID\":\"1\"}"));
    let decision: Fetch = |_| {
        let escape = "\\u001b[2J".repeat(1_000_000);
        Ok(answer(
            200,
            &format!(
                "{{\"deleted\":null,\"new\":[{{\"value\":\"203.0.113.7\",\"scope\":\"ip\",\"type\":\"ban\",\"duration\":\"{escape}\"}}]}}"
            ),
        ))
    };
    for (form, fetch) in [
        (FeedForm::List, long),
        (FeedForm::List, one),
        (FeedForm::Apiban, long),
        (FeedForm::Apiban, id),
        (FeedForm::Apiban, address),
        (FeedForm::Crowdsec, long),
        (FeedForm::Crowdsec, decision),
    ] {
        let said = of(form, fetch);
        let first: String = said.chars().take(80).collect();
        assert!((10..16 * TOLD).contains(&said.len()), "{form:?} said {} bytes: {first:?}", said.len());
        assert!(!said.chars().any(char::is_control), "{form:?} said {first:?}");
    }
}

#[test]
fn why_it_fails_tells_no_secret() {
    let source = feed("https://user:SECRET@lists.example/SECRET?key=SECRET", FeedForm::List, None);
    let all: Fetch = |request| bail!("asking {}: no", request.url);
    assert_eq!(why(&source, all), "asking https://lists.example/...: no");
    let elsewhere: Fetch = |_| Err(anyhow::anyhow!("GET /SECRET?key=SECRET").context("http://x?SECRET"));
    assert_eq!(why(&source, elsewhere), "http://x/...: GET ...");
}
