//! Frames that the kernel reads and that the guard once did not.

use anyhow::Result;
use sipguard_tests::{
    envelope::extension::{DESTINATION, HOP_BY_HOP},
    lab::{FAMILIES, Lab},
    message::negative_length,
};

use super::ip::bent;

/// Behind hop-by-hop options the kernel takes a payload length of zero for "look at the options" (RFC 2675), and then for all
/// that is there.
#[test]
fn a_payload_length_of_zero() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for extensions in [vec![], vec![(HOP_BY_HOP, vec![0, 0, 1, 4, 0, 0, 0, 0])]] {
            let name = format!("length 0 in the IP header, {} extension headers", extensions.len());
            let extensions = if family == 0 { vec![] } else { extensions };
            bent(&lab, family, &name, |envelope| {
                envelope.zero_length = true;
                envelope.extensions.clone_from(&extensions);
            })?;
        }
    }
    Ok(())
}

/// The kernel puts a packet together whose first fragment ends between two extension headers (against RFC 7112).
#[test]
fn a_first_fragment_without_the_transport_header() -> Result<()> {
    let lab = Lab::new(&[])?;
    for headers in 1..4 {
        for cut in 1..=headers {
            let name = format!("a first fragment with {cut} of {headers} extension headers");
            lab.malicious_over(1, &name, |sender| {
                let mut segment = sender.segment(&negative_length().bytes);
                segment.envelope.extensions = vec![(DESTINATION, vec![0, 0, 1, 4, 0, 0, 0, 0]); headers];
                let whole = segment.bytes().len() + headers * 8;
                for frame in segment.fragments(&[0..cut * 8, cut * 8..whole]) {
                    sender.send_frame(&frame)?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Tags of VLAN 0 carry a priority and no VLAN, and the kernel takes off as many as there are.
#[test]
fn many_tags() -> Result<()> {
    let lab = Lab::new(&[])?;
    for family in FAMILIES {
        for count in [3, 4, 8, 40] {
            bent(&lab, family, &format!("{count} tags of VLAN 0"), |envelope| {
                envelope.tags = vec![0; count];
            })?;
        }
    }
    Ok(())
}
