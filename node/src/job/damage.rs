//! How much broken or endless media is survived.

use crate::job::fault::{Done, Fault};

/// Counts packets, those that could not be decoded, and the pictures that came of the others.
#[derive(Debug, Default)]
pub struct Damage {
    packets: u64,
    bad: u64,
    pictures: u64,
    most_pictures: Option<u64>,
    /// Times in a row that the container could not be read.
    searching: u64,
}

/// Bad packets that are survived however short the input is.
const ALWAYS: u64 = 10;
/// One in this many may be bad. Of a broadcast that loses one in a hundred of its packets it is one in six: pictures
/// and sounds span several. The `ffmpeg` command goes on until two thirds are bad.
const ONE_IN: u64 = 4;
/// From this many packets on, too many bad ones end the work at once.
const SAMPLE: u64 = 500;

impl Damage {
    /// For an input of at most this many pictures: a small file can hold very many.
    pub fn within(most_pictures: u64) -> Self {
        Self { most_pictures: Some(most_pictures), ..Self::default() }
    }

    /// One more picture was decoded. Fails when that is one too many.
    pub fn picture(&mut self) -> Done<()> {
        self.pictures += 1;
        match self.most_pictures {
            Some(limit) if self.pictures > limit => Err(Fault::too_large(
                format!("the input has more than {limit} pictures, which is the limit"),
                "--max-pictures",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// One more packet was read.
    pub fn packet(&mut self) {
        self.packets += 1;
        self.searching = 0;
    }

    /// One could not be read or decoded. Fails when that is one too many.
    pub fn bad(&mut self) -> Done<()> {
        self.bad += 1;
        if self.packets.max(self.bad) >= SAMPLE { self.check() } else { Ok(()) }
    }

    /// The container could not be read at this place; the demuxer goes on behind it. While it searches, which it does a
    /// little at a time (tags behind the end of WavPack, for one), it is one place, within reason.
    pub fn unreadable(&mut self) -> Done<()> {
        const SEARCH: u64 = 100_000;
        self.searching += 1;
        if (2..SEARCH).contains(&self.searching) {
            return Ok(());
        }
        self.packets += 1;
        self.bad()
    }

    /// Fails when too many were bad.
    pub fn check(&self) -> Done<()> {
        if self.bad <= ALWAYS || self.bad * ONE_IN <= self.packets {
            return Ok(());
        }
        let (bad, packets) = (self.bad, self.packets);
        Err(Fault::transcode(format!(
            "the input is damaged: {bad} of {packets} packets could not be decoded; at most one in {ONE_IN} is skipped"
        )))
    }

    /// What a caller should know.
    pub fn warning(&self) -> Option<String> {
        (self.bad > 0).then(|| format!("{} of {} packets were damaged and skipped", self.bad, self.packets))
    }
}
