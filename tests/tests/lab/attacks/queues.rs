//! One connection by two receive queues at the same moment, as a card does that hashes fragments, tunnels or flows anew.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use sipguard_tests::{
    cpu,
    guard::Site,
    lab::{FAMILIES, Lab},
    message::{negative_length, register},
    setting::Setting,
    wire::Wire,
};

use super::stage::{Table, expect_judged, expect_read, first, follow_one, unguarded};

/// Of one family. On a guard with the fault one of a few dozen succeeded.
const TRIES: usize = 300;
/// How often a device repeats what is not acknowledged, at the most.
const REPEATED: usize = 3;

/// A whole message, and as many bytes of one that goes on with a long body.
fn twins() -> (Vec<u8>, Vec<u8>) {
    let whole = register(1);
    let head = "MESSAGE sip:sipguard.test SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
                Call-ID: c\r\nCSeq: 1 MESSAGE\r\nContent-Length: 60000\r\nX: ";
    let filler = "x".repeat(whole.len() - head.len() - 4);
    let begun = format!("{head}{filler}\r\n\r\n").into_bytes();
    assert_eq!(whole.len(), begun.len());
    (whole, begun)
}

/// A lab whose cable has two queues, each for what one processor sends.
fn two_queues(setting: Setting) -> Result<Lab> {
    let lab = unguarded(setting)?;
    for machine in [&lab.site.pbx, &lab.site.phone] {
        machine.run(&["ethtool", "-L", Site::INTERFACE, "rx", "2", "tx", "2"])?;
    }
    lab.attach(&["--grace", "1ms"])?;
    follow_one(&lab)?;
    Ok(lab)
}

/// Two processors, each with a wire whose frames go by its own queue.
struct Pair<'a> {
    lab: &'a Lab,
    cpus: [usize; 2],
    wires: [Wire; 2],
}

impl<'a> Pair<'a> {
    fn new(lab: &'a Lab, cpus: [usize; 2]) -> Result<Self> {
        let wire = || Wire::past_queues(&lab.site.phone, Site::INTERFACE);
        Ok(Self { lab, cpus, wires: [wire()?, wire()?] })
    }

    /// Sends two frames at the same moment.
    fn send(&self, frames: &[Vec<u8>; 2]) -> Result<()> {
        let (ready, cpus, wires) = (AtomicU32::new(0), &self.cpus, &self.wires);
        let send = &|at: usize| {
            cpu::pin(cpus[at])?;
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            wires[at].send(&frames[at])
        };
        std::thread::scope(|scope| {
            let threads = [0, 1].map(|at| scope.spawn(move || send(at)));
            threads.into_iter().try_for_each(|thread| thread.join().expect("a sender"))
        })?;
        self.lab.settle()
    }

    /// The guard and the application are to take either beginning for the stream's, and both the same.
    fn malicious(&self, family: usize) -> Result<()> {
        let (whole, begun) = twins();
        let (mut sender, mut witness) = self.lab.connect(family, first())?;
        self.send(&[sender.segment(&whole).frame(), sender.segment(&begun).frame()])?;
        sender.skip(whole.len());
        sender.push(&negative_length().bytes)?;
        expect_judged(self.lab, &mut witness).map(drop)
    }

    /// A wire that repeats what it carries; and two messages that overtake each other. The device repeats what is not acknowledged.
    fn legal(&self, family: usize) -> Result<()> {
        let (mut sender, mut witness) = self.lab.connect(family, first())?;
        let (one, two) = (register(1), register(2));
        let both = [one.clone(), two.clone()].concat();
        let first = sender.segment(&one);
        self.send(&[first.frame(), first.frame()])?;
        sender.skip(one.len());
        let second = sender.segment(&two);
        self.send(&[first.frame(), second.frame()])?;
        for _ in 0..REPEATED {
            if witness.read()? == both {
                break;
            }
            sender.send(&first)?;
            sender.send(&second)?;
            self.lab.settle()?;
        }
        expect_read(self.lab, &mut witness, &both).map(drop)
    }
}

fn tries(each: impl Fn() -> Result<()>) -> Result<String> {
    (0..TRIES).try_for_each(|number| each().with_context(|| format!("try {number}")))?;
    Ok(format!("{TRIES} tries"))
}

#[test]
fn two_queues_at_the_same_moment() -> Result<()> {
    let mut table = Table::new("E7");
    let [first, second, ..] = cpu::allowed()?[..] else {
        println!("skipped: two processors are needed");
        return Ok(());
    };
    for setting in Setting::tried()? {
        let lab = two_queues(setting)?;
        let pair = Pair::new(&lab, [first, second])?;
        for family in FAMILIES {
            let outcome = tries(|| pair.legal(family));
            table.row("the same and the next segment on two processors", setting, family, outcome);
            let outcome = tries(|| pair.malicious(family));
            table.row("two beginnings of a stream on two processors", setting, family, outcome);
        }
    }
    table.end()
}
