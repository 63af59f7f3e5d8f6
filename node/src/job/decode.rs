//! Feeding a decoder.

use xora_av::{Decoder, ErrorKind, Frame, Packet, Poll};

use crate::job::{
    damage::Damage,
    fault::{Done, Fault},
};

/// Gives a decoder a packet, or with `None` its end, and hands on each frame that comes out. What cannot be decoded is
/// counted as damage.
pub fn decode(
    decoder: &mut Decoder,
    packet: Option<&Packet>,
    damage: &mut Damage,
    mut take: impl FnMut(&mut Frame) -> Done<()>,
) -> Done<()> {
    let mut frame = Frame::new()?;
    loop {
        let sent = survive(decoder.send(packet), damage)?;
        while survive(decoder.receive(&mut frame), damage)?.is_none_or(|poll| poll == Poll::Ready) {
            if frame.width() > 0 {
                damage.picture()?;
            }
            if frame.width() > 0 || frame.samples() > 0 {
                take(&mut frame)?;
            }
        }
        // Full before: now there is room.
        if sent != Some(Poll::More) {
            return Ok(());
        }
    }
}

/// `None` for damage that is survived.
fn survive(result: xora_av::Result<Poll>, damage: &mut Damage) -> Done<Option<Poll>> {
    match result {
        Ok(poll) => Ok(Some(poll)),
        Err(error) if error.kind == ErrorKind::Memory => Err(Fault::Av(error)),
        Err(_) => damage.bad().map(|()| None),
    }
}
