//! Handshakes, by the word of the PBX: its SYN-ACK says where both sides go on, and only who got it can acknowledge it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use sipguard_common::Reason;
use sipguard_common::abi::{
    Flow, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, Handshake, flow_flags, flow_state, offer,
};

use super::flow;
use crate::admit::{policy, port, rate};
use crate::cpu::scratch::{self, Key, Packet};
use crate::cpu::settings;

/// Handshakes that are not complete. Apart from the flows, so that a flood of SYNs can't push connections out.
#[map]
static HANDSHAKES: LruHashMap<Key, Handshake> = LruHashMap::with_max_entries(1 << 15, 0);

/// The handshake of a key.
#[inline(always)]
pub fn get(key: &Key) -> Option<*mut Handshake> {
    HANDSHAKES.get_ptr_mut(key)
}

/// Takes note of one.
#[inline(always)]
pub fn note(key: &Key, handshake: &Handshake) {
    // A map that is full forgets the oldest.
    let _forgotten = HANDSHAKES.insert(key, handshake, 0);
}

/// It is complete.
#[inline(always)]
pub fn forget(key: &Key) {
    let _absent = HANDSHAKES.remove(key);
}

/// In a replay, which has no PBX to say anything, a SYN is taken for a handshake.
#[inline(always)]
pub fn note_unanswered(packet: &Packet) {
    let peer_next = packet.seq.wrapping_add(1);
    match flow::lookup(&packet.key) {
        // SAFETY: a live map value; one word.
        Some(flow) => unsafe { (*flow).offer = offer(peer_next, UNKNOWN) },
        None => note(&packet.key, &Handshake { peer_next, pbx_next: UNKNOWN, kind: HANDSHAKE_ANSWERED }),
    }
}

/// [`Handshake::pbx_next`] in a replay that did not see the answer.
const UNKNOWN: u32 = 0;

/// Whether the packet is of the connection that a handshake makes: it acknowledges what the PBX answered. Where it lies does not count: it may
/// have overtaken others, and a receiver takes what of it lies behind the first byte even when it begins before that.
#[inline(always)]
fn is_true(packet: &Packet, pbx_next: u32) -> bool {
    packet.acknowledged == pbx_next || settings::is_replay() && pbx_next == UNKNOWN
}

/// Begins the flow of a handshake that the packet completes. `None` when there is none such.
#[inline(always)]
pub fn begin(packet: &mut Packet) -> Result<Option<*mut Flow>, Reason> {
    let Some(handshake) = get(&packet.key) else { return Ok(None) };
    // SAFETY: a live map value.
    let Handshake { peer_next, pbx_next, kind } = unsafe { *handshake };
    if kind == HANDSHAKE_DIALLED {
        // The PBX's own connection, which it has from a port that is guarded; it is known once it is answered.
        return Err(Reason::NotGuarded);
    }
    if !is_true(packet, pbx_next) {
        return Ok(None);
    }
    rate::connection(settings::get()?)?;
    let flow = flow::insert(packet)?;
    // SAFETY: a live map value that nobody has but this CPU and those that lock it.
    let flow = unsafe { &mut *flow };
    let token = flow::lock(flow).ok_or(Reason::FlowBusy)?;
    restart(packet, flow, peer_next, pbx_next);
    flow::unlock(flow, token);
    forget(&packet.key);
    Ok(Some(flow))
}

/// Begins a flow anew when the packet completes the handshake of another connection of the same ports. `Err` is why it may not. A function
/// of its own for the stack's sake.
#[inline(never)]
pub fn completes(packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let (peer_next, pbx_next) = ((flow.offer >> 32) as u32, flow.offer as u32);
    if !is_true(packet, pbx_next) {
        return Ok(());
    }
    rate::connection(settings::get()?)?;
    restart(packet, flow, peer_next, pbx_next);
    Ok(())
}

#[inline(always)]
fn restart(packet: &mut Packet, flow: &mut Flow, peer_next: u32, pbx_next: u32) {
    flow.offer = 0;
    flow.begun = offer(peer_next, pbx_next);
    flow.ended = 0;
    flow.sent = pbx_next;
    flow.una = pbx_next;
    flow.acked = peer_next;
    flow.heard = u32::from(!settings::is_replay());
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.flags = if packet.transport == scratch::TLS { flow_flags::TLS } else { 0 };
    flow.state = flow_state::FOLLOWED;
    flow::start(flow, peer_next, true);
    packet.expected = flow.next;
}

/// The answer to a SYN of the PBX: it acknowledges it, or it is nobody's. It begins nothing: a damaged one goes no further.
#[inline(always)]
pub fn answered(packet: &mut Packet) -> Result<Reason, Reason> {
    if settings::is_replay() {
        return answered_unseen(packet);
    }
    let Some(handshake) = get(&packet.key) else { return Err(Reason::NotGuarded) };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind != HANDSHAKE_DIALLED || packet.acknowledged != handshake.pbx_next {
        return Err(Reason::NotGuarded);
    }
    // The PBX may not take it. Its own acknowledgement begins the flow.
    handshake.peer_next = packet.seq.wrapping_add(1);
    if packet.side != port::PEER {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    Ok(Reason::TcpControl)
}

/// Whether the packet comes on a connection that the PBX dials, and whose answer it has not acknowledged yet.
#[inline(always)]
pub fn is_early(packet: &Packet) -> bool {
    // SAFETY: a live map value.
    get(&packet.key).is_some_and(|handshake| unsafe { (*handshake).kind } == HANDSHAKE_DIALLED)
}

/// In a replay the SYN of the PBX was not seen.
#[inline(always)]
fn answered_unseen(packet: &mut Packet) -> Result<Reason, Reason> {
    if packet.side != port::PEER {
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    let flow = flow::insert(packet)?;
    // SAFETY: as in `begin`.
    let flow = unsafe { &mut *flow };
    let token = flow::lock(flow).ok_or(Reason::FlowBusy)?;
    restart(packet, flow, packet.seq.wrapping_add(1), UNKNOWN);
    flow::unlock(flow, token);
    Ok(Reason::TcpControl)
}
