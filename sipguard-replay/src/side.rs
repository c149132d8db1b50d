//! Which side of a packet is the PBX. A capture made there has both directions, and the guard sees only one: what comes in.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use sipguard_core::address::{Mapped, mapped, unmapped};
use sipguard_core::maps::Ports;
use sipguard_observe::header::{Ends, Header};

/// Packets from which the addresses of the PBX are guessed.
pub(crate) const LOOKED_AT: u64 = 200_000;
/// Pairs of addresses that are told apart; a flood of forged ones ends here.
const PAIRS: usize = 1 << 16;

/// Most addresses of a PBX, and pairs in doubt; a capture of a network has more, of which what is sent both ways is judged.
const MOST_ADDRESSES: usize = 64;
/// Of so many packets that are marked as received one may contradict, such as a forged one, and the marks are believed.
const CONTRADICTING: u64 = 10;

/// The addresses of the PBX.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    addresses: BTreeSet<Mapped>,
    /// Whether they were guessed.
    pub guessed: bool,
    /// What the capture says of directions.
    pub marks: Marks,
    /// Pairs of addresses of which either may be the PBX: what both sent is judged.
    pub doubtful: Vec<[IpAddr; 2]>,
}

/// What a capture says of the direction of its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Nothing, or not which packets came in.
    #[default]
    None,
    /// It contradicts itself.
    Contradicting,
    /// What can be believed.
    Believed,
}

impl Side {
    /// The addresses that the operator named.
    #[must_use]
    pub(crate) fn named(pbx: &[IpAddr]) -> Side {
        let addresses = pbx.iter().copied().map(mapped).collect();
        Side { addresses, ..Side::default() }
    }

    /// The addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().map(unmapped)
    }

    /// Whether a packet is to or from the PBX.
    #[must_use]
    pub(crate) fn has(&self, ends: &Ends) -> bool {
        self.addresses.contains(&ends.from) || self.addresses.contains(&ends.to)
    }

    /// Whether the PBX sent it: what the operator says decides, then what the capture says where it can be believed, then what was guessed.
    #[must_use]
    pub(crate) fn sent(&self, captured: Option<bool>, ends: &Ends) -> bool {
        match captured {
            Some(outgoing) if self.marks == Marks::Believed => outgoing,
            _ => self.addresses.contains(&ends.from) && !self.addresses.contains(&ends.to),
        }
    }
}

/// Packets between two addresses.
#[derive(Clone, Copy, Default)]
struct PairPackets {
    /// From the smaller address, and from the other.
    sent: [u64; 2],
    /// Those of them that are marked as received.
    received: [u64; 2],
}

/// What speaks for an address, the weightiest first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    is_server: bool,
    packets: u64,
    serves: u64,
    is_sent: u64,
}

/// What speaks for an address being the PBX's.
#[derive(Default)]
pub(crate) struct Guess {
    /// Packets with a guarded port, by both addresses, the smaller first.
    pairs: HashMap<[Mapped; 2], PairPackets>,
    /// Packets in which an address is the one that serves.
    serves: HashMap<Mapped, u64>,
}

impl Guess {
    /// One more packet with its payload; `captured` as for [`Side::sent`].
    pub(crate) fn see(&mut self, header: &Header, payload: &[u8], captured: Option<bool>, ports: &Ports) {
        let Ends { from, to, ports: between } = header.ends;
        let guarded =
            between.map(|port| ports.sip.contains(&port) || header.tcp && ports.tls.contains(&port));
        if guarded == [false; 2] || from == to {
            return;
        }
        let pair = if from < to { [from, to] } else { [to, from] };
        if self.pairs.len() < PAIRS || self.pairs.contains_key(&pair) {
            let packets = self.pairs.entry(pair).or_default();
            packets.sent[usize::from(from > to)] += 1;
            packets.received[usize::from(from > to)] += u64::from(captured == Some(false));
        }
        let serving = match guarded {
            // Phones register from port 5060 too.
            _ if payload.starts_with(b"REGISTER ") => Some(to),
            [false, true] => Some(to),
            [true, false] => Some(from),
            _ if header.is_first() => Some(to),
            _ if header.is_syn() => Some(from),
            _ => None,
        };
        if let Some(serving) =
            serving.filter(|address| self.serves.len() < PAIRS || self.serves.contains_key(address))
        {
            *self.serves.entry(serving).or_default() += 1;
        }
    }

    /// Addresses that serve before those that don't, then the one that most packets have, then the one that most of the others have, until
    /// every packet has one. Where two have as many, the one that serves more, then the one that is sent more.
    #[must_use]
    pub(crate) fn side(mut self) -> Side {
        let marks = self.marks();
        if marks == Marks::Believed {
            return Side { addresses: self.receivers(), guessed: true, marks, doubtful: vec![] };
        }
        let (mut addresses, mut doubtful) = (BTreeSet::new(), Vec::new());
        while !self.pairs.is_empty() && addresses.len() + doubtful.len() < MOST_ADDRESSES {
            let mut scores: HashMap<Mapped, Score> = HashMap::new();
            for (pair, packets) in &self.pairs {
                for (at, address) in pair.iter().enumerate() {
                    let score = scores.entry(*address).or_default();
                    score.packets += packets.sent[0] + packets.sent[1];
                    score.serves = self.serves.get(address).copied().unwrap_or(0);
                    score.is_server = score.serves != 0;
                    score.is_sent += packets.sent[1 - at];
                }
            }
            let Some((best, score)) = scores.iter().max_by_key(|(address, score)| (**score, **address))
            else {
                break;
            };
            let rival = self.pairs.keys().find(|pair| {
                pair.contains(best) && pair.iter().all(|address| scores.get(address) == Some(score))
            });
            if let Some(pair) = rival.copied() {
                doubtful.push(pair.map(unmapped));
                self.pairs.remove(&pair);
                continue;
            }
            let best = *best;
            self.pairs.retain(|pair, _| !pair.contains(&best));
            addresses.insert(best);
        }
        Side { addresses, guessed: true, marks, doubtful }
    }

    /// Who receives what is marked as received.
    fn receivers(&self) -> BTreeSet<Mapped> {
        let all = self.pairs.iter().filter_map(|(pair, packets)| match packets.received {
            [0, 0] => None,
            [one, other] => Some(pair[usize::from(one >= other)]),
        });
        all.take(MOST_ADDRESSES).collect()
    }

    /// No machine receives what a phone says to the PBX, and also what the PBX says to the phone: where both are marked as received, the capture
    /// is of a mirror port or a router, or a tool marked all packets alike.
    fn marks(&self) -> Marks {
        let (mut all, mut contradicting) = (0, 0);
        for [one, other] in self.pairs.values().map(|packets| packets.received) {
            all += one + other;
            contradicting += one.min(other);
        }
        match all {
            0 => Marks::None,
            _ if contradicting * CONTRADICTING < all => Marks::Believed,
            _ => Marks::Contradicting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(packets: &[(&str, u16, &str, u16)]) -> Vec<String> {
        let ports = Ports { sip: [5060].into(), tls: [5061].into() };
        let mut guess = Guess::default();
        for (from, from_port, to, to_port) in packets {
            let [from, to] = [from, to].map(|text| mapped(text.parse().unwrap()));
            let ends = Ends { from, to, ports: [*from_port, *to_port] };
            guess.see(&Header { ends, ..Header::default() }, b"", None, &ports);
        }
        guess.side().addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn the_pbx_is_who_everybody_speaks_to() {
        // Phones behind ports of their own, and a trunk of which the PBX is the client.
        let phones = [("10.0.0.2", 4000, "10.0.0.1", 5060), ("10.0.0.3", 4000, "10.0.0.1", 5060)];
        let trunk = [("10.0.0.1", 4711, "192.0.2.9", 5060), ("192.0.2.9", 5060, "10.0.0.1", 4711)];
        assert_eq!(guess(&[phones, trunk].concat()), ["10.0.0.1"]);
        assert_eq!(guess(&phones[..1]), ["10.0.0.1"], "one phone: who serves");
        assert_eq!(guess(&[("10.0.0.2", 4000, "10.0.0.1", 8080)]), Vec::<String>::new());
    }

    #[test]
    fn an_attacker_is_no_pbx() {
        // He sends more than all others, to two addresses of the PBX, which answer nothing.
        let phone = [("10.0.0.2", 4000, "10.0.0.1", 5060), ("10.0.0.1", 5060, "10.0.0.2", 4000)];
        let attack = [("203.0.113.66", 6000, "10.0.0.1", 5060), ("203.0.113.66", 6000, "10.0.0.4", 5060)];
        let same_port = [("203.0.113.66", 5060, "10.0.0.1", 5060), ("203.0.113.66", 5060, "10.0.0.4", 5060)];
        assert_eq!(guess(&[&phone[..], &attack.repeat(9)].concat()), ["10.0.0.1", "10.0.0.4"]);
        assert_eq!(guess(&[&phone[..], &same_port.repeat(9)].concat()), ["10.0.0.1", "10.0.0.4"]);
    }

    #[test]
    fn who_receives_a_register_serves_and_else_both_are_judged() {
        let ports = Ports { sip: [5060].into(), tls: [5061].into() };
        let [phone, pbx] = ["10.0.0.9", "10.0.0.1"].map(|text| mapped(text.parse().unwrap()));
        for (request, addresses, doubtful) in [("REGISTER sip:h", 1, 0), ("OPTIONS sip:h", 0, 1)] {
            let mut guess = Guess::default();
            for (from, to, payload) in [(phone, pbx, request), (pbx, phone, "SIP/2.0 200 OK")] {
                let header = Header { ends: Ends { from, to, ports: [5060, 5060] }, ..Header::default() };
                guess.see(&header, payload.as_bytes(), None, &ports);
            }
            let side = guess.side();
            assert_eq!((side.addresses.len(), side.doubtful.len()), (addresses, doubtful), "{request}");
            assert!(!side.sent(None, &Ends { from: phone, to: pbx, ports: [5060, 5060] }));
        }
    }

    /// A question and its answer, so often, each with its mark.
    fn marks(packets: &[(Option<bool>, Option<bool>, u64)]) -> Marks {
        let ports = Ports { sip: [5060].into(), tls: [5061].into() };
        let [phone, pbx] = ["10.0.0.2", "10.0.0.1"].map(|text| mapped(text.parse().unwrap()));
        let mut guess = Guess::default();
        for (question, answer, count) in packets {
            for (from, to, mark) in [(phone, pbx, question), (pbx, phone, answer)] {
                let header = Header { ends: Ends { from, to, ports: [5060, 5060] }, ..Header::default() };
                (0..*count).for_each(|_| guess.see(&header, b"", *mark, &ports));
            }
        }
        guess.side().marks
    }

    #[test]
    fn marks_that_contradict_are_not_believed() {
        let (received, sent) = (Some(false), Some(true));
        assert_eq!(marks(&[(received, sent, 9)]), Marks::Believed);
        // Only one direction was captured.
        assert_eq!(marks(&[(received, None, 9)]), Marks::Believed);
        assert_eq!(marks(&[(None, None, 9)]), Marks::None);
        assert_eq!(marks(&[(sent, sent, 9)]), Marks::None);
        // A mirror port; then a router, which sees each packet come and go.
        assert_eq!(marks(&[(received, received, 9)]), Marks::Contradicting);
        assert_eq!(marks(&[(received, received, 9), (sent, sent, 9)]), Marks::Contradicting);
        // Somebody forges the address of the PBX.
        assert_eq!(marks(&[(received, sent, 50), (None, received, 2)]), Marks::Believed);
    }
}
