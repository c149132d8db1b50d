//! Rules about what a request says of itself: who sends it, and with which program. Asked by the framer, where such rules are.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key as PrefixKey;
use aya_ebpf::maps::{HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{Rule, Settings, rules_in_use};
use sipguard_common::framer::{Header, Key, Subject, answer, ask, identity, screens, user_agent};

use super::window::Bytes;
use crate::admit::policy;
use crate::cpu::ending::Ending;
use crate::cpu::scratch::{self, Scratch, Who};

#[map]
static IDENTITIES: HashMap<Key, Rule> = HashMap::with_max_entries(1 << 16, BPF_F_NO_PREALLOC);

/// The key in words, so that it may stand in the scratch space as it is made.
type Words = [u32; 16];

#[map]
static USER_AGENTS: LpmTrie<Words, Rule> = LpmTrie::with_max_entries(1 << 12, 0);

/// User agents within each other that are looked at. Userspace sweeps out those that have ended with every change.
const NESTED: usize = 4;

/// Where keys are made. `bits` stands right before `key`: together they are the key of a prefix.
#[repr(C)]
pub struct Screen {
    pad: u32,
    bits: u32,
    key: Key,
}

/// Which lines of a sender's requests rules are looked up for. Trunks and allowed addresses are excused.
#[inline(always)]
pub fn of(settings: &Settings, who: &Who) -> u32 {
    if settings.rules & (rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS) == 0
        || who.trunk != 0
        || who.allowed != 0
    {
        return 0;
    }
    let set = |rules, screens| if settings.rules & rules == 0 { 0 } else { screens };
    set(rules_in_use::IDENTITIES, screens::IDENTITIES) | set(rules_in_use::USER_AGENTS, screens::USER_AGENTS)
}

/// Asks about the header line that the framer has noted: whether the request goes on.
#[inline(always)]
pub fn line() -> Ending {
    Ending::of(screen_line())
}

/// A global function: the verifier looks at it once, for any line. Returns an [`Ending`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn screen_line() -> u32 {
    let Ok(scratch) = scratch::get() else { return Ending::ON.scalar() };
    // SAFETY: this CPU's map value. The functions that are called here change other parts of it.
    let Scratch { window, stream, walk, .. } = unsafe { &mut *scratch };
    walk.cursor.asks = 0;
    let header = Header::of(stream, &walk.cursor);
    let screened = ask(&Bytes(window.as_mut_ptr()), &header, |subject| match subject {
        Subject::Uri(at) => Ending::of(screen_uri(at)).reason(),
        Subject::UserAgent(at) => Ending::of(screen_agent(at)).reason(),
    });
    Ending::from(answer(stream, screened)).scalar()
}

/// A global function, as [`screen_line`]: whether a rule stops the identity of the URI at an offset of the line.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn screen_uri(at: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return Ending::ON.scalar() };
    // SAFETY: as in `screen_line`.
    let Scratch { window, screen, who, stream, walk, .. } = unsafe { &mut *scratch };
    let header = Header::of(stream, &walk.cursor);
    if identity(&Bytes(window.as_mut_ptr()), &header, at, &mut screen.key) == 0 {
        return Ending::ON.scalar();
    }
    let Some(rule) = IDENTITIES.get_ptr_mut(&screen.key) else { return Ending::ON.scalar() };
    Ending::from(policy::decides(rule, who, Reason::BlockedIdentity).map(drop)).scalar()
}

/// A global function, as [`screen_line`]: whether a rule stops the user agent at an offset of the line. The longest prefix decides.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn screen_agent(at: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return Ending::ON.scalar() };
    // SAFETY: as in `screen_line`.
    let Scratch { window, screen, who, stream, walk, .. } = unsafe { &mut *scratch };
    let header = Header::of(stream, &walk.cursor);
    screen.bits = 8 * user_agent(&Bytes(window.as_mut_ptr()), &header, at, &mut screen.key);
    for _ in 0..NESTED {
        let key = (&raw const screen.bits).cast::<PrefixKey<Words>>();
        // SAFETY: `bits` and `key` stand side by side, as the trie has them.
        let Some(rule) = USER_AGENTS.get(unsafe { &*key }) else { return Ending::ON.scalar() };
        let rule = core::ptr::from_ref(rule).cast_mut();
        match policy::decides(rule, who, Reason::BlockedUserAgent) {
            Err(reason) => return Ending::with(reason).scalar(),
            Ok(true) => return Ending::ON.scalar(),
            Ok(false) => {}
        }
        // SAFETY: a live map value.
        let bits = u32::from(unsafe { (*rule).bits });
        if bits == 0 {
            return Ending::ON.scalar();
        }
        screen.bits = bits - 1;
    }
    Ending::ON.scalar()
}
