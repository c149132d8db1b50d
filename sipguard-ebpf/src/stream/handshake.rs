//! Handshakes. The PBX's SYN-ACK has the sequence numbers of both sides, and only a peer that received it can acknowledge it.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::XdpContext;
use sipguard_common::Reason;
use sipguard_common::abi::{
    Flow, FlowState, HANDSHAKE_ANSWERED, HANDSHAKE_DIALLED, Handshake, pack_handshake,
};

use super::{client, flow, greeting};
use crate::admit::{policy, port, rate};
use crate::cpu::scratch::{FlowWords, Packet};
use crate::cpu::settings;

/// Incomplete handshakes. Separate from the flows, so that a flood of SYNs cannot evict connections.
#[map]
static HANDSHAKES: LruHashMap<FlowWords, Handshake> = LruHashMap::with_max_entries(1 << 15, 0);

/// The handshake of a key.
#[inline(always)]
pub fn get(key: &FlowWords) -> Option<*mut Handshake> {
    HANDSHAKES.get_ptr_mut(key)
}

/// Records a handshake.
#[inline(always)]
pub fn record(key: &FlowWords, handshake: &Handshake) {
    // A full map evicts the oldest.
    let _forgotten = HANDSHAKES.insert(key, handshake, 0);
}

/// Removes a complete handshake.
#[inline(always)]
pub fn forget(key: &FlowWords) {
    let _absent = HANDSHAKES.remove(key);
}

/// In a replay, where the PBX's answer may be missing, a SYN alone is taken for a handshake.
#[inline(always)]
pub fn record_unanswered(packet: &Packet) {
    let peer_next = packet.seq.wrapping_add(1);
    match flow::lookup(&packet.key) {
        // SAFETY: a live map value; one word.
        Some(flow) => unsafe { (*flow).pending_handshake = pack_handshake(peer_next, UNKNOWN) },
        None => record(
            &packet.key,
            &Handshake { peer_next, pbx_next: UNKNOWN, kind: HANDSHAKE_ANSWERED, held: 0 },
        ),
    }
}

/// [`Handshake::pbx_next`] in a replay that did not see the answer.
const UNKNOWN: u32 = 0;

/// Whether the packet completes a handshake: it acknowledges the PBX's answer. Its own sequence number does not matter: it may have overtaken
/// others, and a receiver accepts the part behind the first byte even if the segment begins before that.
#[inline(always)]
fn is_true(packet: &Packet, pbx_next: u32) -> bool {
    packet.acknowledged == pbx_next || settings::is_replay() && pbx_next == UNKNOWN
}

/// Creates the flow of a handshake that the packet completes. `None` when there is no such handshake.
#[inline(always)]
pub fn begin(packet: &mut Packet) -> Result<Option<*mut Flow>, Reason> {
    let Some(handshake) = get(&packet.key) else { return Ok(None) };
    // SAFETY: a live map value.
    let Handshake { peer_next, pbx_next, kind, .. } = unsafe { *handshake };
    if kind != HANDSHAKE_ANSWERED {
        // The PBX dialled from a guarded port. The flow is created once the connection is answered.
        return Err(Reason::NotGuarded);
    }
    if !is_true(packet, pbx_next) {
        return Ok(None);
    }
    rate::connection(settings::get()?)?;
    let flow = flow::insert(packet)?;
    // SAFETY: a live map value, locked before it is changed.
    let flow = unsafe { &mut *flow };
    let token = flow::lock(flow).ok_or(Reason::FlowBusy)?;
    restart(packet, flow, peer_next, pbx_next);
    flow::unlock(flow, token);
    forget(&packet.key);
    Ok(Some(flow))
}

/// Restarts a flow when the packet completes the handshake of a new connection of the same ports. `Err` is the reason to refuse that.
// own frame: 24 bytes
#[inline(never)]
pub fn completes(packet: &mut Packet, flow: &mut Flow) -> Result<(), Reason> {
    let (peer_next, pbx_next) = ((flow.pending_handshake >> 32) as u32, flow.pending_handshake as u32);
    if !is_true(packet, pbx_next) {
        return Ok(());
    }
    rate::connection(settings::get()?)?;
    restart(packet, flow, peer_next, pbx_next);
    Ok(())
}

#[inline(always)]
fn restart(packet: &mut Packet, flow: &mut Flow, peer_next: u32, pbx_next: u32) {
    flow.pending_handshake = 0;
    flow.current_handshake = pack_handshake(peer_next, pbx_next);
    flow.ended = 0;
    flow.sent = pbx_next;
    flow.una = pbx_next;
    flow.acked = peer_next;
    flow.egress_known = u32::from(!settings::is_replay());
    flow.first_ns = settings::now_ns();
    flow.slot = settings::slot();
    flow.flags = client::flags(packet);
    flow.state = FlowState::InSync as u32;
    flow::start(flow, peer_next, true);
    packet.expected = flow.next;
}

/// A SYN-ACK to the PBX. It must acknowledge a SYN of the PBX. It creates no flow: the kernel may discard it as damaged.
#[inline(always)]
pub fn answered(ctx: &XdpContext, packet: &mut Packet) -> Result<Reason, Reason> {
    if settings::is_replay() {
        return answered_unseen(packet);
    }
    let Some(handshake) = get(&packet.key) else { return Err(Reason::NotGuarded) };
    // SAFETY: a live map value.
    let handshake = unsafe { &mut *handshake };
    if handshake.kind != HANDSHAKE_DIALLED || packet.acknowledged != handshake.pbx_next {
        return Err(Reason::NotGuarded);
    }
    // The PBX may not accept it; its acknowledgement creates the flow.
    handshake.peer_next = packet.seq.wrapping_add(1);
    if packet.side != port::PEER {
        greeting::window(ctx, packet, handshake);
        return Err(Reason::NotGuarded);
    }
    policy::permit()?;
    Ok(Reason::TcpControl)
}

/// Whether the packet is of a connection that the PBX dials and has not acknowledged the answer of.
#[inline(always)]
pub fn is_early(packet: &Packet) -> bool {
    // SAFETY: a live map value.
    get(&packet.key).is_some_and(|handshake| unsafe { (*handshake).kind } != HANDSHAKE_ANSWERED)
}

/// In a replay, where the SYN of the PBX may be missing, its answer creates the flow.
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
