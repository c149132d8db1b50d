//! Which function of the object calls which, and what each takes of the stack.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// Bytes of an instruction.
const INSTRUCTION: u64 = 8;
/// `call` and `r = imm64`, whose target a relocation names.
const CALL: u8 = 0x85;
const LOAD_ADDRESS: u8 = 0x18;
/// Source register of a `call` that calls a function of the object.
const LOCAL: u8 = 1;
/// What older kernels round frames up to.
const GRAIN: u32 = 32;

/// Section and offset of a function.
type Place = (usize, u64);

/// What a relocation names: a function, or the section in which the instruction says where.
struct Target {
    place: Place,
    is_section: bool,
}

impl Target {
    fn at(&self, within: u64) -> Place {
        (self.place.0, self.place.1 + if self.is_section { within } else { 0 })
    }
}

/// The functions.
pub struct Calls(BTreeMap<Place, Function>);

#[derive(Debug, Default)]
struct Function {
    name: String,
    stack: u32,
    /// What it calls, callbacks among them.
    calls: BTreeSet<Place>,
}

impl Calls {
    /// Reads an object.
    pub fn read(bytes: &[u8]) -> Result<Calls> {
        let file = object::File::parse(bytes).context("reading the object")?;
        let mut functions: BTreeMap<Place, Function> = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
            let Some(section) = symbol.section_index() else { continue };
            let name = short(symbol.name()?);
            functions.insert((section.0, symbol.address()), Function { name, ..Function::default() });
        }
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let index = section.index().0;
            let targets: BTreeMap<u64, Target> = section
                .relocations()
                .filter_map(|(at, relocation)| {
                    let RelocationTarget::Symbol(symbol) = relocation.target() else { return None };
                    let symbol = file.symbol_by_index(symbol).ok()?;
                    let section = symbol.section_index()?;
                    if file.section_by_index(section).ok()?.kind() != SectionKind::Text {
                        // A map.
                        return None;
                    }
                    let place = (section.0, symbol.address());
                    Some((at, Target { place, is_section: symbol.kind() == SymbolKind::Section }))
                })
                .collect();
            let code = section.data()?;
            let starts: Vec<Place> = functions.keys().filter(|place| place.0 == index).copied().collect();
            for (number, start) in starts.iter().enumerate() {
                let end = starts.get(number + 1).map_or(code.len() as u64, |next| next.1);
                let code = &code[start.1 as usize..end as usize];
                let (stack, calls) = read(code, *start, &targets)?;
                let function = functions.get_mut(start).context("a function")?;
                (function.stack, function.calls) = (stack, calls);
            }
        }
        for function in functions.values() {
            for target in &function.calls {
                ensure!(functions.contains_key(target), "{} calls what is no function", function.name);
            }
        }
        Ok(Calls(functions))
    }

    /// The most that a function and all that it calls have on the stack together, and by which functions.
    pub fn deepest(&self, name: &str) -> Result<(u32, Vec<String>)> {
        let place = self.0.iter().find(|(_, function)| function.name == name).map(|(place, _)| *place);
        self.below(place.with_context(|| format!("no function {name}"))?, 0)
    }

    /// Functions that none of `programs` is or calls, directly or through others.
    pub fn unreached(&self, programs: &[&str]) -> Result<Vec<&str>> {
        let mut next: Vec<Place> = Vec::new();
        for program in programs {
            let place = self.0.iter().find(|(_, function)| function.name == *program);
            next.push(*place.with_context(|| format!("no function {program}"))?.0);
        }
        let mut reached = BTreeSet::new();
        while let Some(place) = next.pop() {
            if reached.insert(place) {
                next.extend(&self.0[&place].calls);
            }
        }
        let rest = self.0.iter().filter(|(place, _)| !reached.contains(*place));
        Ok(rest.map(|(_, function)| function.name.as_str()).collect())
    }

    fn below(&self, place: Place, depth: usize) -> Result<(u32, Vec<String>)> {
        let function = &self.0[&place];
        if depth > 16 {
            bail!("{} is called too deep, or by itself", function.name);
        }
        let mut most = (0, Vec::new());
        for target in function.calls.iter().filter(|target| **target != place) {
            let below = self.below(*target, depth + 1)?;
            if below.0 > most.0 {
                most = below;
            }
        }
        most.0 += function.stack.next_multiple_of(GRAIN).max(GRAIN);
        most.1.insert(0, function.name.clone());
        Ok(most)
    }
}

/// The stack and the calls of a function's code, which begins at `start`.
fn read(code: &[u8], start: Place, targets: &BTreeMap<u64, Target>) -> Result<(u32, BTreeSet<Place>)> {
    let (mut lowest, mut calls, mut copies) = (0i32, BTreeSet::new(), [false; 16]);
    for (at, instruction) in
        (start.1..).step_by(INSTRUCTION as usize).zip(code.chunks_exact(INSTRUCTION as usize))
    {
        let (opcode, target, source) =
            (instruction[0], usize::from(instruction[1] & 15), instruction[1] >> 4);
        let offset = i32::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let value = i32::from_le_bytes(instruction[4..8].try_into().context("four bytes")?);
        // Loads, stores, and additions to a copy of the frame pointer.
        let touches = match opcode & 7 {
            1 => source == 10,
            2 | 3 => target == 10,
            _ => false,
        };
        if touches {
            lowest = lowest.min(offset);
        }
        if opcode == 0x07 && copies[target] {
            lowest = lowest.min(value);
        }
        copies[target] = opcode == 0xbf && source == 10;
        match (opcode, targets.get(&at)) {
            (CALL, Some(target)) if source == LOCAL => {
                calls.insert(target.at((i64::from(value) + 1) as u64 * INSTRUCTION));
            }
            (CALL, None) if source == LOCAL => {
                let to = (at / INSTRUCTION) as i64 + 1 + i64::from(value);
                calls.insert((start.0, to as u64 * INSTRUCTION));
            }
            (LOAD_ADDRESS, Some(target)) => {
                calls.insert(target.at(u64::from(value.cast_unsigned())));
            }
            _ => {}
        }
    }
    Ok((lowest.unsigned_abs(), calls))
}

/// The last part of a mangled name, without its hash; any other as it is.
fn short(name: &str) -> String {
    let (mut parts, mut rest) = (Vec::new(), name);
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_digit()) {
        let digits: String = rest[start..].chars().take_while(char::is_ascii_digit).collect();
        let from = start + digits.len();
        let length = digits.parse::<usize>().unwrap_or(0);
        match rest.get(from..from + length) {
            Some(part) if length > 0 && name.starts_with('_') => {
                parts.push(part);
                rest = &rest[from + length..];
            }
            _ => rest = &rest[from..],
        }
    }
    let hash = |part: &&str| part.len() == 17 && part.starts_with('h');
    parts.into_iter().rfind(|part| !hash(part)).unwrap_or(name).to_owned()
}
