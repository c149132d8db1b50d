//! A connection, or what stands for one, under the framer that is tested.

use sipguard_common::Reason;
use sipguard_common::framer::{Buffer, Limits, Stream, feed};

/// What became of a stream: complete messages, then the reason of its end if it was malformed.
pub type Outcome = (u32, Option<Reason>);

/// A connection under the fast framer.
pub struct Flow {
    pub stream: Stream,
    /// Why it ended, if it did.
    pub end: Option<Reason>,
}

impl Flow {
    /// Before its first byte.
    pub const NEW: Flow = Flow { stream: Stream::NEW, end: None };

    /// On a TLS port; `known` when it really begins there.
    pub fn tls(known: bool) -> Flow {
        let mut flow = Flow::NEW;
        flow.stream.begin_tls(known);
        flow
    }

    /// The next segment.
    pub fn take(&mut self, limits: &Limits, buffer: &mut Buffer, segment: &[u8]) {
        if self.end.is_none() {
            self.end =
                feed(&mut self.stream, limits, buffer, segment).err().map(|malformed| malformed.reason);
            // What does not count in its phase may be anything: in the kernel it is another flow's.
            let spare = self.stream.words();
            bytemuck::cast_slice_mut::<Stream, u64>(std::slice::from_mut(&mut self.stream))[spare..]
                .fill(u64::MAX / 3);
        }
    }

    /// As the XDP program does: a segment that lies within a body is not looked at.
    pub fn take_or_skip(&mut self, limits: &Limits, buffer: &mut Buffer, segment: &[u8]) {
        if self.end.is_some() || !self.stream.skip(segment.len() as u32) {
            self.take(limits, buffer, segment);
        }
    }

    /// All of a stream, cut at `cuts` (lengths of the segments, repeated).
    pub fn take_all(mut self, limits: &Limits, bytes: &[u8], cuts: &[usize]) -> Flow {
        let mut buffer = Box::new(Buffer::NEW);
        for segment in pieces(bytes, 0, cuts) {
            self.take(limits, &mut buffer, segment);
        }
        self
    }

    /// What became of it.
    pub fn outcome(&self) -> Outcome {
        (self.stream.messages, self.end)
    }
}

/// `bytes` in pieces; the first is longer by `ahead` bytes.
pub fn pieces<'a>(bytes: &'a [u8], mut ahead: usize, cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    cuts.iter().cycle().map_while(move |cut| {
        let (piece, later) = rest.split_at_checked((cut.max(&1) + ahead).min(rest.len()))?;
        (rest, ahead) = (later, 0);
        (!piece.is_empty()).then_some(piece)
    })
}

/// The fast framer over `bytes` cut at `cuts` (lengths of the segments, repeated).
pub fn fast(bytes: &[u8], cuts: &[usize], limits: &Limits) -> Outcome {
    Flow::NEW.take_all(limits, bytes, cuts).outcome()
}
