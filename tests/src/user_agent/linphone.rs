//! linphone (the belle-sip stack): pings with two line ends over UDP as well as over TCP.

use std::{
    fs::File,
    io::{PipeWriter, Write as _},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::Line;
use crate::{
    application::{PATIENCE, wait_until},
    netns::Netns,
    process::Running,
    scratch::Scratch,
};

/// It pings every two seconds, and never asks a DNS server about itself.
const CONFIG: &str = "\
[sip]
sip_port=5060
sip_tcp_port=5060
sip_tls_port=0
keepalive_period=2000
guess_hostname=1
media_encryption=none
user_agent=linphone

[proxy_0]
reg_proxy=<@REGISTRAR@>
reg_identity=sip:@USER@@sipguard.test
reg_expires=@RENEWAL@
reg_sendregister=1
publish=0

[misc]
uuid=00000000-0000-4000-8000-000000000001
";

/// More memory than it ever needs. It is known to eat a machine's whole memory when its sound card plays no part
/// in real time, as ALSA's `null` does.
const MEMORY: &str = "--as=4000000000";

/// A linphone that answers every call and does what it is told. Drop ends it and removes its files.
#[derive(Debug)]
pub struct Linphone {
    // The process goes before the directory it writes to.
    process: Running,
    orders: PipeWriter,
    /// How much of its output is older than the last order.
    heard: usize,
    scratch: Scratch,
}

impl Linphone {
    /// Starts it, and returns when its registrar has said yes.
    pub fn start(namespace: &Netns, line: &Line<'_>) -> Result<Self> {
        let scratch = Scratch::new("linphone")?;
        scratch.write("rc", &config(line))?;
        // It does not make the directories of its databases.
        for directory in [".config/linphone", ".local/share/linphone"] {
            std::fs::create_dir_all(scratch.join(directory)).context("making directories for linphone")?;
        }
        let output = File::create(scratch.join("output")).context("making the output of linphone")?;
        let (input, orders) = std::io::pipe().context("making a pipe to linphone")?;
        let mut command = namespace.command("prlimit");
        command.args([MEMORY, "linphone-daemon", "--auto-answer", "--disable-stats-events", "--config"]);
        command.arg(scratch.join("rc")).arg("--log").arg(scratch.join("log")).current_dir(scratch.path());
        // Its calls are without sound: it shall find neither a sound card nor somebody's settings.
        command.env("HOME", scratch.path()).env("ALSA_CONFIG_PATH", "/dev/null");
        command.stdin(input).stdout(output.try_clone()?).stderr(output);
        let process = Running::start("linphone", &mut command)?;
        // The command would keep the reading end of the pipe open.
        drop(command);
        let mut linphone = Self { process, orders, heard: 0, scratch };
        linphone.wait_until_said("daemon-linphone>")?;
        wait_until("linphone is registered", || {
            Ok(linphone.order("register-status ALL")?.contains("LinphoneRegistrationOk"))
        })?;
        Ok(linphone)
    }

    /// Tells it to do something, such as `call` with a URI, and returns its answer.
    pub fn order(&mut self, words: &str) -> Result<String> {
        self.heard = self.output().len();
        writeln!(self.orders, "{words}").context("giving linphone an order")?;
        // Details follow the status and may come later; whoever looks for them asks again.
        self.wait_until_said("Status: ")?;
        let answer = self.output().split_off(self.heard);
        ensure!(!answer.contains("Status: Error"), "linphone refused {words}: {answer}");
        Ok(answer)
    }

    /// Waits until it has said `text`, such as an event's name, since the last order was given.
    pub fn wait_until_said(&mut self, text: &str) -> Result<()> {
        let waited = wait_until(text, || {
            self.process.expect_alive()?;
            Ok(self.output()[self.heard..].contains(text))
        });
        waited.with_context(|| format!("linphone said {:?}", &self.output()[self.heard..]))
    }

    /// Makes it end.
    pub fn quit(mut self) -> Result<()> {
        writeln!(self.orders, "quit").context("telling linphone to quit")?;
        match self.process.wait_at_most(PATIENCE)? {
            Some(status) if status.success() => Ok(()),
            status => bail!("linphone ended with {status:?}"),
        }
    }

    fn output(&self) -> String {
        // A file that was cut within a character is whole the next time.
        String::from_utf8_lossy(&std::fs::read(self.scratch.join("output")).unwrap_or_default()).into_owned()
    }
}

fn config(line: &Line<'_>) -> String {
    let words = [
        ("@REGISTRAR@", line.uri(None)),
        ("@USER@", line.user.to_owned()),
        ("@RENEWAL@", line.renewal_secs.to_string()),
    ];
    words.iter().fold(CONFIG.to_owned(), |text, (word, value)| text.replace(word, value))
}
