//! A terminal of our own: a pseudo-terminal whose screen can be read.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    pty::{Winsize, openpty},
    sys::{
        signal::Signal,
        termios::{LocalFlags, tcgetattr},
    },
};
use sipguard_tests::{
    application::{PATIENCE, wait_until},
    guard::Guard,
    process::Running,
};
use vt100::{Parser, Screen};

/// What a program shows on a terminal of 80x24, or of another size.
pub struct Pty {
    program: Running,
    keyboard: File,
    screen: Arc<Mutex<Parser>>,
    /// Kept open, so that its settings can be asked for when the program has ended.
    slave: OwnedFd,
    before: LocalFlags,
}

impl Pty {
    /// Starts a command of the guard in a terminal.
    pub fn start(guard: &Guard, words: &[&str], (columns, rows): (u16, u16)) -> Result<Pty> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).context("opening a pseudo-terminal")?;
        let before = tcgetattr(&pair.slave).context("asking for the terminal's settings")?.local_flags;
        let mut command: Command = guard.command(words);
        let end = || pair.slave.try_clone().context("an end of the terminal");
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        let program = Running::start("sipguard top", &mut command)?;
        let screen = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let mut output = File::from(pair.master.try_clone()?);
        let parser = Arc::clone(&screen);
        // Ends when the last end of the terminal is closed.
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut chunk) {
                parser.lock().unwrap_or_else(PoisonError::into_inner).process(&chunk[..count]);
            }
        });
        Ok(Pty { program, keyboard: File::from(pair.master), screen, slave: pair.slave, before })
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("pressing keys")
    }

    /// The screen as it is now.
    pub fn screen(&self) -> Screen {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().clone()
    }

    /// Waits until a text stands on the screen; shows the screen when it does not.
    pub fn wait_for(&self, text: &str) -> Result<Screen> {
        self.wait(&format!("{text:?} stands on the screen"), |shown| shown.contains(text))
    }

    /// Waits until the screen is as wanted; shows it when it is not.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<Screen> {
        let seen = wait_until(what, || Ok(wanted(&self.screen().contents())));
        seen.with_context(|| format!("the screen is\n{}", self.screen().contents()))?;
        Ok(self.screen())
    }

    /// Makes the terminal another size.
    pub fn resize(&mut self, columns: u16, rows: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(rows, columns);
        // SAFETY: the kernel reads a struct of the type that this request has.
        let done =
            unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&self.slave), libc::TIOCSWINSZ, &size) };
        nix::errno::Errno::result(done).context("resizing the terminal")?;
        // Nobody's controlling terminal: the kernel tells nobody.
        self.signal(Signal::SIGWINCH)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }

    /// Waits for the end; the program ended well, and the terminal is as it was.
    pub fn expect_end(mut self) -> Result<()> {
        let status = self.program.wait_at_most(PATIENCE)?.context("it does not end")?;
        ensure!(status.success(), "it ended with {status}; the screen is\n{}", self.screen().contents());
        let after = tcgetattr(self.slave.as_fd()).context("asking for the terminal's settings")?.local_flags;
        ensure!(after == self.before, "the terminal is {after:?}, and was {:?}", self.before);
        wait_until("the screen of before is back, with its cursor", || {
            let screen = self.screen();
            Ok(!screen.alternate_screen() && !screen.hide_cursor())
        })
    }
}
