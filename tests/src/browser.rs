//! A headless Chromium, spoken to by its DevTools protocol over two pipes: JSON with a NUL behind each message.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::netns::Netns;
use crate::process::{Running, output};
use crate::scratch::Scratch;

/// Program of Debian's package `chromium`.
pub const PROGRAM: &str = "chromium";

/// A window of a browser of its own.
pub struct Browser {
    to: File,
    from: BufReader<File>,
    session: Value,
    asked: u64,
    // Ended before its profile is removed.
    _browser: Running,
    scratch: Scratch,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Width and height of the window in CSS pixels.
    pub size: (u32, u32),
    /// Whether the reader prefers a dark page.
    pub dark: bool,
}

impl Browser {
    /// Starts a browser in a namespace, with an empty page.
    pub fn new(namespace: &Netns) -> Result<Browser> {
        let scratch = Scratch::new("browser")?;
        let (to, from) = (scratch.join("to"), scratch.join("from"));
        for pipe in [&to, &from] {
            mkfifo(pipe, Mode::S_IRWXU)?;
        }
        let mut command = namespace.command("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\"", PROGRAM]);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]);
        command.args(["--disable-background-networking", "--remote-debugging-pipe", "about:blank"]);
        command.arg(format!("--user-data-dir={}", scratch.join("profile").display()));
        command.env("TO", &to).env("FROM", &from).env("HOME", scratch.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(scratch.join("log"))?);
        let browser = Running::start(PROGRAM, &mut command)?;
        // Each waits for the shell to open the other end.
        let to = OpenOptions::new().write(true).open(&to)?;
        let from = BufReader::new(File::open(&from)?);
        let mut browser = Browser { to, from, session: Value::Null, asked: 0, _browser: browser, scratch };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))?;
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.ask("Target.attachToTarget", target)?["sessionId"].take();
        browser.ask("Page.enable", json!({}))?;
        // They would take their width from a page and not be in its picture.
        browser.ask("Emulation.setScrollbarsHidden", json!({ "hidden": true }))?;
        Ok(browser)
    }

    /// Looks at a page from now on in another way.
    pub fn view(&mut self, view: View) -> Result<()> {
        let (width, height) = view.size;
        let mobile = width < 640;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.ask("Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.ask("Page.navigate", json!({ "url": url }))?;
        ensure!(answer["errorText"].is_null(), "{url}: {}", answer["errorText"]);
        Ok(())
    }

    /// The value of an expression of JavaScript; a promise is waited for.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "allowUnsafeEvalBlockedByCSP": false });
        let mut answer = self.ask("Runtime.evaluate", asked)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// A picture of what the window shows, as PNG.
    pub fn window(&mut self, path: &Path) -> Result<()> {
        self.capture(path, json!({ "format": "png" }))
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let size = |browser: &mut Browser, side: &str| {
            browser.value(&format!("document.documentElement.scroll{side}"))
        };
        let (width, height) = (size(self, "Width")?, size(self, "Height")?);
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        self.capture(path, asked)
    }

    fn capture(&mut self, path: &Path, asked: Value) -> Result<()> {
        let answer = self.ask("Page.captureScreenshot", asked)?;
        let text = self.scratch.join("picture");
        std::fs::write(&text, answer["data"].as_str().context("a picture")?)?;
        let mut decode = Command::new("base64");
        let decode = decode.arg("--decode").arg(&text).stdout(File::create(path)?);
        ensure!(decode.status()?.success(), "the picture is not base64");
        let kind = output(Command::new("head").args(["--bytes=8"]).arg(path)).unwrap_or_default();
        ensure!(kind.contains("PNG"), "the picture is no PNG");
        Ok(())
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes)?;
        loop {
            let mut bytes = Vec::new();
            if self.from.read_until(0, &mut bytes)? == 0 {
                bail!(
                    "the browser ended: {}",
                    std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
                );
            }
            bytes.pop();
            let mut answer: Value = serde_json::from_slice(&bytes)?;
            if answer["id"] == self.asked {
                ensure!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
        }
    }
}
