//! Whether the first pictures of a track that is copied can be decoded. Recordings often begin between two places where
//! decoding can; copied, such a file would begin with nothing, or with rubble.

use xora_av::{Decoder, Frame, Input, Orientation, Packet};

use crate::job::{
    damage::Damage,
    decode::decode,
    fault::{Done, Fault},
};

/// Pictures looked at: as many as are decoded of an output before it counts.
const PICTURES: u64 = 16;

/// See the module.
pub struct FirstPictures {
    decoder: Decoder,
    damage: Damage,
    has_begun: bool,
    sent: u64,
    shown: u64,
    is_good: bool,
    /// How the container says that the pictures must be turned.
    orientation: Orientation,
    /// Whether the pictures say otherwise, which few players heed.
    is_turned: bool,
}

impl FirstPictures {
    /// Begins with a stream.
    pub fn open(input: &Input, stream: usize, max_pixels: u64) -> Done<Self> {
        let decoder = Decoder::open(input, stream, 1, max_pixels)?;
        let orientation = input.streams().get(stream).map_or(Orientation::Upright, |stream| stream.orientation);
        Ok(Self {
            decoder,
            damage: Damage::default(),
            has_begun: false,
            sent: 0,
            shown: 0,
            is_good: true,
            orientation,
            is_turned: false,
        })
    }

    /// Looks at the next packet, or with `None` at the end, and is gone once enough was seen.
    pub fn look_on(first: &mut Option<Self>, packet: Option<&Packet>) -> Done<()> {
        if let Some(looking) = first
            && looking.look(packet)?
        {
            *first = None;
        }
        Ok(())
    }

    /// Looks at the next packet, or with `None` at the end. True once enough was seen; fails when it was no good.
    fn look(&mut self, packet: Option<&Packet>) -> Done<bool> {
        if packet.is_some_and(|packet| !self.has_begun && !packet.is_key()) {
            return Err(Fault::uncopyable("its first pictures cannot be decoded without earlier ones"));
        }
        self.has_begun = true;
        self.decode(packet)?;
        self.sent += packet.map_or(0, |packet| u64::from(!packet.is_discarded()));
        if packet.is_some() && self.sent < PICTURES {
            return Ok(false);
        }
        if packet.is_some() {
            self.decode(None)?;
        }
        if self.is_turned {
            return Err(Fault::uncopyable("the pictures say themselves how they must be turned"));
        }
        if self.is_good && self.shown > 0 && self.damage.warning().is_none() {
            return Ok(true);
        }
        Err(Fault::uncopyable("its first pictures are damaged"))
    }

    fn decode(&mut self, packet: Option<&Packet>) -> Done<()> {
        let Self { decoder, damage, shown, is_good, orientation, is_turned, .. } = self;
        decode(decoder, packet, damage, |frame: &mut Frame| {
            *shown += 1;
            *is_good &= !frame.is_damaged();
            *is_turned |= frame.orientation().is_some_and(|found| found != *orientation);
            Ok(())
        })
    }
}
