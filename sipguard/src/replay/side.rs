//! Which side of a packet is the PBX. A capture made there has both directions, and the guard sees only one: what comes in.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::address::{Mapped, mapped, unmapped};
use crate::header::{Ends, Header};
use crate::maps::Ports;

/// Packets from which the addresses of the PBX are guessed.
pub const LOOKED_AT: u64 = 200_000;
/// Pairs of addresses that are told apart; a flood of forged ones ends here.
const PAIRS: usize = 1 << 16;

/// The addresses of the PBX.
#[derive(Clone, Debug, Default)]
pub struct Side {
    addresses: BTreeSet<Mapped>,
    /// Whether they were guessed.
    pub guessed: bool,
}

impl Side {
    /// The addresses that the operator named.
    #[must_use]
    pub fn named(pbx: &[IpAddr]) -> Side {
        Side { addresses: pbx.iter().copied().map(mapped).collect(), guessed: false }
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().map(unmapped)
    }

    /// Whether the PBX sent it: what the operator says decides, then what the capture says, then what was guessed.
    #[must_use]
    pub fn sent(&self, captured: Option<bool>, ends: &Ends) -> bool {
        match captured {
            Some(outgoing) if self.guessed => outgoing,
            _ => self.addresses.contains(&ends.from) && !self.addresses.contains(&ends.to),
        }
    }
}

/// What speaks for an address being the PBX's.
#[derive(Default)]
pub struct Guess {
    /// Packets with a guarded port, by both addresses, the smaller first.
    pairs: HashMap<[Mapped; 2], u64>,
    /// Packets in which an address is the one that serves.
    serves: HashMap<Mapped, u64>,
}

impl Guess {
    /// One more packet.
    pub fn see(&mut self, header: &Header, ports: &Ports) {
        let Ends { from, to, ports: between } = header.ends;
        let guarded =
            between.map(|port| ports.sip.contains(&port) || header.tcp && ports.tls.contains(&port));
        if guarded == [false; 2] || from == to {
            return;
        }
        let pair = if from < to { [from, to] } else { [to, from] };
        if self.pairs.len() < PAIRS || self.pairs.contains_key(&pair) {
            *self.pairs.entry(pair).or_default() += 1;
        }
        let serving = match guarded {
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

    /// The address that most packets have, then the one that most of the others have, until every packet has one. Where two have
    /// as many, the one that serves, then the one that more speak to.
    #[must_use]
    pub fn side(mut self) -> Side {
        let mut addresses = BTreeSet::new();
        while !self.pairs.is_empty() {
            let mut score: HashMap<Mapped, (u64, u64, u64)> = HashMap::new();
            for (pair, packets) in &self.pairs {
                for address in pair {
                    let score = score.entry(*address).or_default();
                    score.0 += packets;
                    score.1 = self.serves.get(address).copied().unwrap_or(0);
                    score.2 += 1;
                }
            }
            let Some((best, _)) = score.into_iter().max_by_key(|(address, score)| (*score, *address)) else {
                break;
            };
            self.pairs.retain(|pair, _| !pair.contains(&best));
            addresses.insert(best);
        }
        Side { addresses, guessed: true }
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
            guess.see(&Header { ends, ..Header::default() }, &ports);
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
}
