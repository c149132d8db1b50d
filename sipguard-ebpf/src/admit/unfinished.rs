//! Limits of the messages that a source or a trunk has begun on TCP connections and not finished. Each one takes a connection and a buffer of
//! the PBX for as long as a message may take.
//!
//! A flow knows by its [`Ticket`] where its message is counted, and gives it back once. Where a flow is lost with its ticket, because it was
//! evicted, the count forgets it with the time: see [`sipguard_common::abi::Unfinished`].

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use sipguard_common::Reason;
use sipguard_common::abi::{
    ConnectionOwner, Flow, Settings, Span, Ticket, UNFINISHED_ENTRIES, Unfinished, rules_in_use,
};

use super::{connections, policy, port, rate};
use crate::cpu::scratch::{self, Packet, Sender};
use crate::cpu::{atomic, settings};
use crate::packet::ip;

#[map]
static UNFINISHED: Array<Unfinished> = Array::with_max_entries(UNFINISHED_ENTRIES, 0);

/// Attempts to change a word that other CPUs change too.
const ATTEMPTS: usize = 3;

/// Refuses the first segment of a connection, or the header that names its client, while its sender has as many unfinished messages as it may.
#[inline(always)]
pub fn admit(sender: &Sender, settings: &Settings) -> Result<(), Reason> {
    if settings.rules & rules_in_use::UNFINISHED == 0 || sender.allowed != 0 {
        return Ok(());
    }
    let trunk = policy::trunk(rate::limited_trunk(sender));
    let most = trunk.map_or(settings.unfinished, |trunk| trunk.unfinished);
    if most == 0 || visit(COUNT, 0) < most {
        return Ok(());
    }
    policy::over(Reason::UnfinishedMessages)
}

/// What [`visit`] is to do.
const COUNT: u32 = 0;
const ENTER: u32 = 1;

/// Goes to the entry of the packet's sender. Returns how many messages it counts, or with [`ENTER`] counts one that began at a time, and returns its
/// [`Ticket`], or 0 where it is not counted.
// own frame: 64 bytes
#[inline(never)]
fn visit(what: u32, began_ns: u64) -> u32 {
    let (Ok(settings), Ok(sender), Ok(limits)) = (settings::get(), scratch::sender(), policy::limits())
    else {
        return 0;
    };
    // SAFETY: this CPU's map value, which nothing changes once the packet is permitted.
    let sender = unsafe { &*sender };
    let now = Span::of(settings::now_ns(), limits.message_ms);
    let [r0, r1, r2, r3, _] = sender.source;
    let remote = [r0, r1, r2, r3];
    // Sources are the same in every network namespace: what counts is what came in by a guarded interface.
    let trunk = rate::limited_trunk(sender);
    let (remote, owner) = connections::owner(remote, ip::is_v6(&remote), trunk, 0, settings);
    let found = find(owner);
    if what == COUNT {
        return found.map_or(0, |(_, entry)| count(entry, now));
    }
    let found = found.or_else(|| take(owner, remote, trunk, now));
    found.map_or(0, |(slot, entry)| add(entry, slot, Span::of(began_ns, limits.message_ms)))
}

/// The owner's entry, with its slot.
#[inline(always)]
fn find(owner: ConnectionOwner) -> Option<(u32, *mut Unfinished)> {
    let [mut slot, other] = owner.unfinished_slots();
    let mut entry = UNFINISHED.get_ptr_mut(slot)?;
    // SAFETY: a live map value; one word.
    if unsafe { (*entry).tag } != owner.tag() {
        slot = other;
        entry = UNFINISHED.get_ptr_mut(slot)?;
        // SAFETY: as above.
        if unsafe { (*entry).tag } != owner.tag() {
            return None;
        }
    }
    Some((slot, entry))
}

/// The messages of an entry. Not inlined: there are several callers.
#[inline(never)]
fn count(entry: *const Unfinished, now: Span) -> u32 {
    // SAFETY: a live map value, whose words are read one by one.
    unsafe { (*entry).count(now) }
}

/// Counts the message that the flow is in, and no more the one that it was in.
#[inline(always)]
pub fn follow(packet: &Packet, flow: &mut Flow) {
    let within = flow.stream.is_within_message();
    if flow.unfinished == 0 && !within || within && flow.unfinished != 0 && flow.message_segments > 1 {
        return;
    }
    changed(packet, flow, within);
}

/// The flow has come into a message, or out of one.
#[inline(always)]
fn changed(packet: &Packet, flow: &mut Flow, within: bool) {
    leave(flow);
    let is_counted = settings::get().is_ok_and(|settings| settings.rules & rules_in_use::UNFINISHED != 0);
    if within && is_counted && packet.side == port::OWN {
        flow.unfinished = visit(ENTER, flow.message_ns);
    }
}

/// Counts no more the message that the flow is in: the flow ends, or begins anew.
#[inline(always)]
pub fn leave(flow: *mut Flow) {
    // SAFETY: a live map value; one word.
    if unsafe { (*flow).unfinished } != 0 {
        subtract(flow);
    }
}

/// Gives a ticket back. Not inlined: there are several callers, and few flows have one.
#[inline(never)]
fn subtract(flow: *mut Flow) {
    // SAFETY: a live map value. Of two that give one back at once, only one gets it.
    let ticket = Ticket(unsafe { atomic::exchange_half(&raw mut (*flow).unfinished, 0) });
    let Some(entry) = UNFINISHED.get_ptr_mut(ticket.slot()) else { return };
    // SAFETY: a live map value; the index is one of the array.
    let word = unsafe { (&raw mut (*entry).spans).cast::<u64>().add(ticket.index()) };
    for _ in 0..ATTEMPTS {
        // SAFETY: as above.
        let old = unsafe { word.read_volatile() };
        let Some(new) = ticket.one_less(old) else { return };
        // SAFETY: as above.
        if unsafe { atomic::replace(word, old, new) } {
            return;
        }
    }
}

/// Takes an entry whose owner has no unfinished message.
#[inline(always)]
fn take(owner: ConnectionOwner, remote: [u32; 4], trunk: u32, now: Span) -> Option<(u32, *mut Unfinished)> {
    let [mut slot, other] = owner.unfinished_slots();
    let mut entry = UNFINISHED.get_ptr_mut(slot)?;
    if count(entry, now) != 0 {
        slot = other;
        entry = UNFINISHED.get_ptr_mut(slot)?;
        if count(entry, now) != 0 {
            return None;
        }
    }
    // SAFETY: a live map value. Of two owners that take it at once, one gets it.
    unsafe {
        let old = (&raw const (*entry).tag).read_volatile();
        if !atomic::replace(&raw mut (*entry).tag, old, owner.tag()) {
            return None;
        }
        (*entry).remote = remote;
        (*entry).trunk = trunk;
    }
    Some((slot, entry))
}

/// Adds one to an entry. Returns the ticket, or 0.
#[inline(always)]
fn add(entry: *mut Unfinished, slot: u32, span: Span) -> u32 {
    // SAFETY: a live map value; the index is one of the array.
    let word = unsafe { (&raw mut (*entry).spans).cast::<u64>().add(span.index()) };
    for _ in 0..ATTEMPTS {
        // SAFETY: as above.
        let old = unsafe { word.read_volatile() };
        let Some(new) = span.one_more(old) else { return 0 };
        // SAFETY: as above.
        if unsafe { atomic::replace(word, old, new) } {
            return Ticket::new(slot, span).0;
        }
    }
    0
}
