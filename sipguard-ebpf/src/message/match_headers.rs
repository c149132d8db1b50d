//! Rules about header lines of requests: SIP identities and user agents. Looked up between two steps of the framer, if there are such rules.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key as PrefixKey;
use aya_ebpf::maps::{HashMap, LpmTrie};
use sipguard_common::Reason;
use sipguard_common::abi::{IDENTITY_ENTRIES, Rule, Settings, USER_AGENT_ENTRIES, rules_in_use};
use sipguard_common::framer::{
    HeaderLine, MatchKey, MatchSubject, apply_match, identity, match_line, matched_headers, user_agent,
};

use super::window::Bytes;
use crate::admit::policy;
use crate::cpu::scratch::{self, Scratch, Sender};
use crate::cpu::stage_result::StageResult;

#[map]
static IDENTITIES: HashMap<MatchKey, Rule> = HashMap::with_max_entries(IDENTITY_ENTRIES, BPF_F_NO_PREALLOC);

/// The key as words in network order, as it is built in the scratch memory.
type MatchKeyWords = [u32; 16];

#[map]
static USER_AGENTS: LpmTrie<MatchKeyWords, Rule> = LpmTrie::with_max_entries(USER_AGENT_ENTRIES, 0);

/// Nested prefixes of user agents that are looked up. Userspace removes expired ones with every change.
const NESTED: usize = 4;

/// Buffer for keys. `bits` is right before `key`: together they are the key of the trie.
#[repr(C)]
pub struct MatchKeyBuffer {
    pad: u32,
    bits: u32,
    key: MatchKey,
}

/// The header lines of a sender's requests that are matched against rules. Trunks and allowed addresses are exempt.
#[inline(always)]
pub fn of(settings: &Settings, sender: &Sender) -> u32 {
    if settings.rules & (rules_in_use::IDENTITIES | rules_in_use::USER_AGENTS) == 0
        || sender.trunk != 0
        || sender.allowed != 0
    {
        return 0;
    }
    let set = |rules, matched_headers| if settings.rules & rules == 0 { 0 } else { matched_headers };
    set(rules_in_use::IDENTITIES, matched_headers::IDENTITIES)
        | set(rules_in_use::USER_AGENTS, matched_headers::USER_AGENTS)
}

/// Matches the header line that the framer has marked: whether the request continues.
#[inline(always)]
pub fn line() -> StageResult {
    StageResult::from_scalar(match_headers_line())
}

/// A global function: verified once, for any line. Returns a [`StageResult`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn match_headers_line() -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::CONTINUE.scalar() };
    // SAFETY: this CPU's map value. The functions that are called here change other fields of it.
    let Scratch { window, stream, payload, .. } = unsafe { &mut *scratch };
    payload.cursor.match_due = 0;
    let header = HeaderLine::of(stream, &payload.cursor);
    let outcome = match_line(&Bytes(window.as_mut_ptr()), &header, |subject| match subject {
        MatchSubject::Uri(at) => StageResult::from_scalar(match_headers_uri(at)).reason(),
        MatchSubject::UserAgent(at) => StageResult::from_scalar(match_headers_agent(at)).reason(),
    });
    StageResult::from(apply_match(stream, outcome)).scalar()
}

/// A global function like [`match_headers_line`]: whether a rule stops the identity of the URI at an offset of the line.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn match_headers_uri(at: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::CONTINUE.scalar() };
    // SAFETY: as in `match_headers_line`.
    let Scratch { window, match_key, sender, stream, payload, .. } = unsafe { &mut *scratch };
    let header = HeaderLine::of(stream, &payload.cursor);
    if identity(&Bytes(window.as_mut_ptr()), &header, at, &mut match_key.key) == 0 {
        return StageResult::CONTINUE.scalar();
    }
    let Some(rule) = IDENTITIES.get_ptr_mut(&match_key.key) else { return StageResult::CONTINUE.scalar() };
    StageResult::from(policy::decides(rule, sender, Reason::BlockedIdentity).map(drop)).scalar()
}

/// A global function like [`match_headers_line`]: whether a rule stops the user agent at an offset of the line. The longest prefix decides.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn match_headers_agent(at: u32) -> u32 {
    let Ok(scratch) = scratch::get() else { return StageResult::CONTINUE.scalar() };
    // SAFETY: as in `match_headers_line`.
    let Scratch { window, match_key, sender, stream, payload, .. } = unsafe { &mut *scratch };
    let header = HeaderLine::of(stream, &payload.cursor);
    match_key.bits = 8 * user_agent(&Bytes(window.as_mut_ptr()), &header, at, &mut match_key.key);
    for _ in 0..NESTED {
        let key = (&raw const match_key.bits).cast::<PrefixKey<MatchKeyWords>>();
        // SAFETY: `bits` and `key` are adjacent, in the layout of the trie's key.
        let Some(rule) = USER_AGENTS.get(unsafe { &*key }) else { return StageResult::CONTINUE.scalar() };
        let rule = core::ptr::from_ref(rule).cast_mut();
        match policy::decides(rule, sender, Reason::BlockedUserAgent) {
            Err(reason) => return StageResult::stop(reason).scalar(),
            Ok(true) => return StageResult::CONTINUE.scalar(),
            Ok(false) => {}
        }
        // SAFETY: a live map value.
        let bits = u32::from(unsafe { (*rule).bits });
        if bits == 0 {
            return StageResult::CONTINUE.scalar();
        }
        match_key.bits = bits - 1;
    }
    StageResult::CONTINUE.scalar()
}
