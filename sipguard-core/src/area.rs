//! Countries and AS numbers, and which networks of a MaxMind DB file are theirs. Pure: bytes in, prefixes out.
//!
//! The files of several makers differ in the names of what they say of a network: GeoLite2, GeoIP2 and DB-IP have `country.iso_code` and
//! `autonomous_system_number`, IPinfo has `country_code` or `country`, and `asn` with the letters `AS`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use maxminddb::{Metadata, Reader};
use serde::Deserialize;

use crate::address::Source;
use crate::escape::escaped;

/// A country, or the networks of one operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Two capital letters (ISO 3166-1 alpha-2).
    Country([u8; 2]),
    /// An AS number (RFC 6793).
    As(u32),
}

impl Area {
    /// A country by its two letters.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn country(text: &str) -> Result<Area, String> {
        match text.as_bytes() {
            &[first, second] if first.is_ascii_alphabetic() && second.is_ascii_alphabetic() => {
                Ok(Area::Country([first.to_ascii_uppercase(), second.to_ascii_uppercase()]))
            }
            _ => Err(format!("`{text}` is no country: two letters are wanted, such as DE (ISO 3166)")),
        }
    }

    /// An AS number, with or without `AS` before it.
    ///
    /// # Errors
    /// A sentence for whoever wrote it.
    pub fn asn(text: &str) -> Result<Area, String> {
        let digits =
            text.get(..2).filter(|first| first.eq_ignore_ascii_case("AS")).map_or(text, |_| &text[2..]);
        match digits.parse() {
            Ok(number) if number > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Area::As(number))
            }
            _ => Err(format!("`{text}` is no AS number: one from 1 to 4294967295 is wanted, such as 64496")),
        }
    }

    /// Who blocks it, in `list` and for `unblock --all --origin`.
    #[must_use]
    pub fn origin(self) -> String {
        match self {
            Area::Country([first, second]) => format!("country:{}{}", first as char, second as char),
            Area::As(number) => format!("as:{number}"),
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Area::Country([first, second]) => write!(f, "country {}{}", *first as char, *second as char),
            Area::As(number) => write!(f, "AS{number}"),
        }
    }
}

/// The networks of areas, and what the file says of itself.
#[derive(Debug)]
pub(crate) struct Networks {
    /// Disjoint prefixes in order, none shorter than /8 (IPv6: /16); none of an area that the file does not have.
    pub of: BTreeMap<Area, Vec<Source>>,
    /// What kind of file it calls itself.
    pub kind: String,
    /// When it was made (seconds since 1970).
    pub made_s: u64,
    /// Whether it tells countries, and AS numbers, of any network.
    pub tells: Tells,
}

/// What a file tells of networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tells {
    pub countries: bool,
    pub numbers: bool,
}

/// What a file says of a network, as far as it matters here.
#[derive(Deserialize)]
struct Record {
    country: Option<Country>,
    country_code: Option<String>,
    autonomous_system_number: Option<Number>,
    asn: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Country {
    Code(String),
    Named { iso_code: Option<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Text(String),
}

impl Record {
    fn country(&self) -> Option<Area> {
        let within = match &self.country {
            Some(Country::Code(code) | Country::Named { iso_code: Some(code) }) => Some(code),
            _ => None,
        };
        // A file with names in `country` has the letters beside them.
        let codes = [self.country_code.as_ref(), within];
        codes.into_iter().flatten().find_map(|code| Area::country(code).ok())
    }

    fn number(&self) -> Option<Area> {
        match self.autonomous_system_number.as_ref().or(self.asn.as_ref())? {
            Number::Plain(number) => Some(Area::As(u32::try_from(*number).ok()?)),
            Number::Text(text) => Area::asn(text).ok(),
        }
    }
}

/// Finds the networks of areas in a file.
///
/// # Errors
/// When it is no MaxMind DB file, or is damaged.
pub(crate) fn networks(file: &[u8], areas: &[Area]) -> Result<Networks> {
    let reader = Reader::from_source(file)?;
    expect_tree(file, reader.metadata())?;
    let mut found: BTreeMap<Area, Vec<IpNet>> = BTreeMap::new();
    let mut tells = Tells::default();
    // Many networks have the same record.
    let mut known: HashMap<Option<usize>, [Option<Area>; 2]> = HashMap::new();
    for network in reader.networks(maxminddb::WithinOptions::default())? {
        let network = network?;
        let of = match known.get(&network.offset()) {
            Some(of) => *of,
            None => {
                let record: Option<Record> = network.decode()?;
                let of = record.map_or([None; 2], |record| [record.country(), record.number()]);
                known.insert(network.offset(), of);
                of
            }
        };
        tells.countries |= of[0].is_some();
        tells.numbers |= of[1].is_some();
        for area in of.into_iter().flatten().filter(|area| areas.contains(area)) {
            let at = network.network()?;
            if let Ok(prefix) = IpNet::new(at.ip(), at.prefix()) {
                found.entry(area).or_default().push(unmapped(prefix));
            }
        }
    }
    let of = found.into_iter().map(|(area, prefixes)| (area, sources(&prefixes))).collect();
    let about = reader.metadata();
    Ok(Networks { of, kind: escaped(about.database_type.as_bytes()), made_s: about.build_epoch, tells })
}

/// Fails unless every node is below one other, but for the root of IPv4, which has aliases. In a file that is no tree there is no end of networks: a few
/// nodes that each have the next one twice have 2 to the power of their number.
fn expect_tree(file: &[u8], about: &Metadata) -> Result<()> {
    let (count, size) = (about.node_count as usize, usize::from(about.record_size) / 4);
    let records = |node: usize| -> Option<[usize; 2]> {
        let bytes = file.get(node * size..(node + 1) * size)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        Some(match about.record_size {
            // Both highest halves of a byte are in the middle.
            28 => {
                let [high, low] = [bytes[3] >> 4, bytes[3] & 15].map(|half| usize::from(half) << 24);
                [high | number(&bytes[..3]), low | number(&bytes[4..])]
            }
            _ => [number(&bytes[..size / 2]), number(&bytes[size / 2..])],
        })
    };
    let mut ipv4 = 0;
    for _ in 0..96 {
        if about.ip_version == 6 && ipv4 < count {
            ipv4 = records(ipv4).context("its tree is cut off")?[0];
        }
    }
    let mut seen = vec![false; count];
    for root in if ipv4 < count { vec![ipv4, 0] } else { vec![0] } {
        let mut open = vec![root];
        while let Some(node) = open.pop() {
            if node >= count || node == ipv4 && root != ipv4 {
                continue;
            }
            ensure!(!std::mem::replace(&mut seen[node], true), "its tree has a node twice");
            open.extend(records(node).context("its tree is cut off")?);
        }
        if ipv4 == root && root == 0 {
            break;
        }
    }
    Ok(())
}

/// IPv4 is below `::/96` in a file of both families, and where that is no alias below `::ffff:0:0/96`.
fn unmapped(prefix: IpNet) -> IpNet {
    let IpNet::V6(v6) = prefix else { return prefix };
    let bits = u128::from(v6.network());
    let low = u32::try_from(bits).ok().or_else(|| v6.network().to_ipv4_mapped().map(u32::from));
    match (v6.prefix_len().checked_sub(96), low) {
        (Some(length), Some(low)) => IpNet::new(IpAddr::from(low.to_be_bytes()), length).unwrap_or(prefix),
        _ => prefix,
    }
}

/// As few prefixes as they can be, none so short that a block of it would be a mistake of somebody.
fn sources(prefixes: &Vec<IpNet>) -> Vec<Source> {
    let aggregated = IpNet::aggregate(prefixes);
    let least = |prefix: &IpNet| if matches!(prefix, IpNet::V4(_)) { 8 } else { 16 };
    let parts = aggregated.into_iter().flat_map(|prefix| {
        let most = prefix.prefix_len().max(least(&prefix));
        prefix.subnets(most).into_iter().flatten()
    });
    let mut sources: Vec<Source> = parts.map(Source::from).collect();
    sources.sort_unstable();
    sources
}

#[cfg(test)]
mod tests {
    use libmaxminddb_rs::{MetadataBuilder, Writer};
    use serde_json::{Value, json};

    use super::*;

    fn file(version: u16, kind: &str, rows: &[(&str, Value)]) -> Vec<u8> {
        let metadata = MetadataBuilder::new().ip_version(version).database_type(kind).build().unwrap();
        let mut writer = Writer::with_metadata(metadata);
        for (network, value) in rows {
            writer.insert(network.parse().unwrap(), value).unwrap();
        }
        writer.finish().unwrap()
    }

    fn shown(networks: &Networks, area: Area) -> String {
        let of = networks.of.get(&area).map(Vec::as_slice).unwrap_or_default();
        of.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_are_areas_or_refused() {
        assert_eq!(Area::country("de").unwrap().origin(), "country:DE");
        for text in ["", "d", "DEU", "4!", "ü"] {
            assert!(Area::country(text).unwrap_err().contains("two letters"), "{text}");
        }
        for text in ["64496", "AS64496", "as64496"] {
            assert_eq!(Area::asn(text).unwrap().origin(), "as:64496", "{text}");
        }
        for text in ["", "AS", "0", "+5", "4294967296", "AS-1", "ü5"] {
            assert!(Area::asn(text).unwrap_err().contains("no AS number"), "{text}");
        }
    }

    #[test]
    fn every_maker_s_names_are_read_and_neighbours_are_one() {
        let [de, fr] = [Area::Country(*b"DE"), Area::Country(*b"FR")];
        for (kind, germany, france) in [
            (
                "GeoLite2-Country",
                json!({"country": {"iso_code": "DE", "geoname_id": 1}}),
                json!({"country": {"iso_code": "FR"}}),
            ),
            ("ipinfo country", json!({"country": "DE", "continent": "EU"}), json!({"country": "FR"})),
            (
                "ipinfo lite",
                json!({"country": "Germany", "country_code": "DE"}),
                json!({"country": "France", "country_code": "FR"}),
            ),
        ] {
            let rows = [
                ("198.51.100.0/25", germany.clone()),
                ("198.51.100.128/26", germany.clone()),
                ("198.51.100.192/26", germany.clone()),
                ("203.0.113.0/24", france.clone()),
                ("2001:db8::/33", germany.clone()),
                ("2001:db8:8000::/33", germany.clone()),
            ];
            let found = networks(&file(6, kind, &rows), &[de, fr]).unwrap();
            assert_eq!(shown(&found, de), "198.51.100.0/24 2001:db8::/32", "{kind}");
            assert_eq!(shown(&found, fr), "203.0.113.0/24", "{kind}");
            assert_eq!((found.kind.as_str(), found.tells), (kind, Tells { countries: true, numbers: false }));
        }
        for (kind, number) in [
            (
                "GeoLite2-ASN",
                json!({"autonomous_system_number": 64496, "autonomous_system_organization": "Example"}),
            ),
            ("ipinfo", json!({"asn": "AS64496"})),
            ("other", json!({"asn": 64496})),
        ] {
            let found = networks(&file(4, kind, &[("192.0.2.0/24", number)]), &[Area::As(64496)]).unwrap();
            assert_eq!(shown(&found, Area::As(64496)), "192.0.2.0/24", "{kind}");
            assert!(found.tells.numbers && !found.tells.countries);
        }
    }

    #[test]
    fn what_is_wide_is_cut_and_what_is_not_there_is_nobody_s() {
        let us = json!({"country": {"iso_code": "US"}});
        let rows = [
            ("6.0.0.0/7", us.clone()),
            ("2600::/12", us),
            ("8.0.0.0/24", json!({"country": {}})),
            ("9.0.0.0/24", json!({})),
        ];
        let found = networks(&file(6, "x", &rows), &[Area::Country(*b"US"), Area::Country(*b"DE")]).unwrap();
        let of = &found.of[&Area::Country(*b"US")];
        assert_eq!(
            (of.len(), of[0].to_string(), of[1].to_string()),
            (2 + 16, "6.0.0.0/8".into(), "7.0.0.0/8".into())
        );
        assert!(of.iter().all(|source| !source.is_wide()));
        assert!(!found.of.contains_key(&Area::Country(*b"DE")));
    }

    #[test]
    fn ipv4_that_is_written_as_ipv6_is_ipv4_and_as_wide_as_any() {
        let de = json!({"country": {"iso_code": "DE"}});
        let area = Area::Country(*b"DE");
        let rows = [("::ffff:10.9.0.0/120", de.clone()), ("2001:db8::/32", de.clone())];
        let found = networks(&file(6, "x\n\u{1b}[2J", &rows), &[area]).unwrap();
        assert_eq!(shown(&found, area), "10.9.0.0/24 2001:db8::/32");
        assert_eq!(found.kind, "x\\n\\x1b[2J");
        let found = networks(&file(6, "x", &[("::ffff:0:0/96", de)]), &[area]).unwrap();
        assert_eq!((found.of[&area].len(), found.of[&area][0].to_string()), (256, "0.0.0.0/8".to_owned()));
    }

    /// A file with records of 24 bits, with wider ones; `change` gives each node its records.
    fn widened(file: &[u8], bits: u8, change: impl Fn(usize, [u32; 2]) -> [u32; 2]) -> Vec<u8> {
        let count = Reader::from_source(file).unwrap().metadata().node_count as usize;
        let (tree, rest) = file.split_at(count * 6);
        let mut wide = Vec::new();
        for (node, bytes) in tree.chunks(6).enumerate() {
            let record = |bytes: &[u8]| u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            let [left, right] = change(node, [record(bytes), record(&bytes[3..])]).map(u32::to_be_bytes);
            match bits {
                24 => wide.extend([&left[1..], &right[1..]].concat()),
                28 => wide.extend([&left[1..], &[left[0] << 4 | right[0]], &right[1..]].concat()),
                _ => wide.extend([left, right].concat()),
            }
        }
        wide.extend(rest);
        let name = b"record_size";
        let at = wide.windows(name.len()).rposition(|part| part == name).unwrap() + name.len();
        assert_eq!(wide[at..][..2], [0xa1, 24], "the number as the form has it");
        wide[at + 1] = bits;
        wide
    }

    /// Nodes that have the next one twice: 2 to the power of 20 networks in some hundred bytes.
    #[test]
    fn records_of_every_size_are_read_and_what_is_no_tree_is_refused() {
        let de = json!({"country": {"iso_code": "DE"}});
        let names: Vec<String> = (0..64).map(|at| format!("10.0.{at}.0/27")).collect();
        let mut rows: Vec<(&str, Value)> = names.iter().map(|at| (at.as_str(), de.clone())).collect();
        rows.extend([("2001:db8::/32", de.clone()), ("2003::/19", de)]);
        let (whole, area) = (file(6, "x", &rows), Area::Country(*b"DE"));
        let wanted = networks(&whole, &[area]).unwrap().of;
        assert_eq!(wanted[&area].len(), 64 + 2);
        for bits in [24, 28, 32] {
            let same = widened(&whole, bits, |_, records| records);
            assert_eq!(networks(&same, &[area]).unwrap().of, wanted, "{bits}");
            let twice = widened(&whole, bits, |node, records| match node {
                0..20 => [node as u32 + 1; 2],
                _ => records,
            });
            let error = networks(&twice, &[area]).unwrap_err().to_string();
            assert!(error.contains("twice"), "{bits}: {error}");
        }
    }

    /// `2002::/16` has the IPv4 tree as an alias, as the files of MaxMind do.
    #[test]
    fn an_alias_of_the_ipv4_tree_is_none_of_its_networks() {
        let rows = [("10.0.0.0/8", json!({"country": "DE"})), ("2002::/16", json!({"country": "FR"}))];
        let (whole, de) = (file(6, "x", &rows), Area::Country(*b"DE"));
        let fr = Area::Country(*b"FR");
        let found = networks(&whole, &[fr]).unwrap();
        assert_eq!(shown(&found, fr), "2002::/16");
        let count = Reader::from_source(whole.as_slice()).unwrap().metadata().node_count;
        let records = |node: u32| {
            let bytes = &whole[node as usize * 6..][..6];
            [&bytes[..3], &bytes[3..]]
                .map(|part| part.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
        };
        let ipv4 = (0..96).fold(0, |node, _| records(node)[0]);
        // The record of 2002::/16 is the one that is data and not below IPv4.
        let mut node = 0;
        for bit in (0..15).map(|at| 0x2002u16 >> (15 - at) & 1) {
            node = records(node)[usize::from(bit)];
        }
        let aliased = widened(
            &whole,
            24,
            |at, [left, right]| if at == node as usize { [ipv4, right] } else { [left, right] },
        );
        assert!(count > ipv4);
        let found = networks(&aliased, &[de, fr]).unwrap();
        assert_eq!((shown(&found, de), shown(&found, fr)), ("10.0.0.0/8".to_owned(), String::new()));
    }

    /// A damaged file is an error or has other networks; it neither panics nor goes on for ever.
    #[test]
    fn a_damaged_file_ends() {
        let rows: Vec<(String, Value)> = (0..64)
            .map(|at| (format!("10.{at}.0.0/16"), json!({"country": {"iso_code": "DE"}, "asn": at})))
            .collect();
        let rows: Vec<(&str, Value)> = rows.iter().map(|(at, value)| (at.as_str(), value.clone())).collect();
        let whole = file(6, "x", &rows);
        assert!(networks(b"no database", &[]).is_err() && networks(b"", &[]).is_err());
        for at in 0..whole.len() {
            let _short = networks(&whole[..at], &[Area::Country(*b"DE")]);
            for bits in [1, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= bits;
                let _other = networks(&damaged, &[Area::Country(*b"DE")]);
            }
        }
    }
}
