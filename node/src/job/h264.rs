//! As much of H.264's byte format (ITU-T H.264 annex B, ISO 14496-15 section 5.3) as joining two encodings needs. Pure
//! functions on bytes.

/// How the pieces of a packet are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each has its length before it, in four bytes, as in MP4 and Matroska.
    Lengths,
    /// Each has a start code before it, as in transport streams.
    StartCodes,
}

/// The parameter sets that a track is decoded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How its packets are written.
    pub form: Form,
    /// Sequence and picture parameter sets, without what tells them apart.
    pub sets: Vec<Vec<u8>>,
}

/// Types of pieces (table 7-1).
const IDR: u8 = 5;
const SEQUENCE: u8 = 7;
const PICTURE: u8 = 8;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

impl Header {
    /// Reads a codec's header as a container or an encoder keeps it; none when it is not understood.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = if bytes.first() == Some(&1) {
            Self { form: Form::Lengths, sets: configuration(bytes)? }
        } else {
            let sets = pieces(bytes, Form::StartCodes)?.into_iter().filter(|set| is_set(set)).map(<[u8]>::to_vec);
            Self { form: Form::StartCodes, sets: sets.collect() }
        };
        let has = |wanted| header.sets.iter().any(|set| kind(set) == wanted);
        (has(SEQUENCE) && has(PICTURE)).then_some(header)
    }

    /// `profile_idc` of the first sequence.
    pub fn profile(&self) -> Option<u8> {
        self.sets.iter().find(|set| kind(set) == SEQUENCE)?.get(1).copied()
    }

    /// The lowest number, from 1, that no set has for an id: sets of that number can stand beside these.
    pub fn free_id(&self) -> Option<u32> {
        let used: Vec<u32> = self.sets.iter().filter_map(|set| id(set)).collect();
        (1..32).find(|id| !used.contains(id))
    }

    /// Both headers as one, with start codes: its sets have to have ids of their own.
    pub fn with(&self, other: &Self) -> Vec<u8> {
        let sets = self.sets.iter().chain(&other.sets);
        sets.flat_map(|set| START_CODE.iter().chain(set)).copied().collect()
    }

    /// Whether a packet brings no parameter sets but these.
    pub fn covers(&self, packet: &[u8]) -> bool {
        let Some(pieces) = pieces(packet, self.form) else { return false };
        pieces.into_iter().filter(|piece| is_set(piece)).all(|piece| self.sets.iter().any(|set| set == piece))
    }

    /// Whether a packet brings no sequence parameter sets but these, as far as it is understood.
    pub fn covers_sequences(&self, packet: &[u8]) -> bool {
        let sequences = pieces(packet, self.form).into_iter().flatten().filter(|piece| kind(piece) == SEQUENCE);
        sequences.into_iter().all(|piece| self.sets.iter().any(|set| set == piece))
    }

    /// Whether no later picture needs, or is shown before, any picture before this packet's.
    pub fn is_idr(&self, packet: &[u8]) -> bool {
        pieces(packet, self.form).is_some_and(|pieces| pieces.into_iter().any(|piece| kind(piece) == IDR))
    }
}

/// Overwrites the lengths before the pieces of a packet with start codes, which are as long. False, and the packet is
/// spoilt, when it is not what it should be.
pub fn lengths_to_start_codes(packet: &mut [u8]) -> bool {
    let mut rest = packet;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk_mut::<4>() else { return false };
        let piece = u32::from_be_bytes(*length) as usize;
        *length = START_CODE;
        let Some(next) = after.get_mut(piece..) else { return false };
        rest = next;
    }
    true
}

fn kind(piece: &[u8]) -> u8 {
    piece.first().map_or(0, |byte| byte & 0x1f)
}

fn is_set(piece: &[u8]) -> bool {
    matches!(kind(piece), SEQUENCE | PICTURE)
}

/// The sets of an AVC decoder configuration record; none when its packets have lengths of other than four bytes.
fn configuration(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    if bytes.get(4)? & 3 != 3 {
        return None;
    }
    let mut sets = Vec::new();
    let mut rest = bytes.get(5..)?;
    for mask in [0x1f, 0xff] {
        let (count, after) = rest.split_first()?;
        rest = after;
        for _ in 0..count & mask {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (set, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            sets.push(set.to_vec());
            rest = after;
        }
    }
    Some(sets)
}

/// The pieces of a packet; none when it is not what it should be.
fn pieces(packet: &[u8], form: Form) -> Option<Vec<&[u8]>> {
    match form {
        Form::Lengths => by_length(packet),
        Form::StartCodes => Some(by_start_code(packet)),
    }
}

fn by_length(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (piece, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        found.push(piece);
        rest = after;
    }
    Some(found)
}

fn by_start_code(packet: &[u8]) -> Vec<&[u8]> {
    let codes: Vec<usize> =
        packet.windows(3).enumerate().filter(|(_, code)| *code == [0, 0, 1]).map(|(at, _)| at).collect();
    let ends = codes.iter().skip(1).copied().chain([packet.len()]);
    let piece = |(start, end): (&usize, usize)| {
        let mut piece = &packet[start + 3..end];
        // Zeros before the next start code belong to it.
        while let [shorter @ .., 0] = piece {
            piece = shorter;
        }
        piece
    };
    codes.iter().zip(ends).map(piece).filter(|piece| !piece.is_empty()).collect()
}

/// The id of a parameter set (7.3.2.1.1, 7.3.2.2): its first number behind what every set begins with.
fn id(set: &[u8]) -> Option<u32> {
    let skipped = if kind(set) == SEQUENCE { 4 } else { 1 };
    exp_golomb(set.get(skipped..)?)
}

/// The first number of bits in the code of section 9.1.
fn exp_golomb(bytes: &[u8]) -> Option<u32> {
    let bit = |at: usize| bytes.get(at / 8).map(|byte| u32::from(byte >> (7 - at % 8) & 1));
    let zeros = (0..16).position(|at| bit(at) == Some(1))?;
    (zeros..=2 * zeros).try_fold(0, |value, at| Some(value << 1 | bit(at)?)).map(|value| value - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sequence 0 of profile 100 and picture sets 0 and 3.
    const RECORD: [u8; 23] =
        [1, 100, 0, 31, 0xff, 0xe1, 0, 5, 0x67, 100, 0, 31, 0x80, 2, 0, 2, 0x68, 0x80, 0, 2, 0x68, 0x20, 0xaa];

    #[test]
    fn a_configuration_record_gives_its_sets() {
        let header = Header::parse(&RECORD).expect("understood");
        assert_eq!(header.form, Form::Lengths);
        assert_eq!(header.sets, [vec![0x67, 100, 0, 31, 0x80], vec![0x68, 0x80], vec![0x68, 0x20]]);
        assert_eq!((header.profile(), header.free_id()), (Some(100), Some(1)));
        for cut in 0..RECORD.len() - 1 {
            assert_eq!(Header::parse(&RECORD[..cut]), None, "cut at {cut}");
        }
        let mut short_lengths = RECORD;
        short_lengths[4] = 0xfd;
        assert_eq!(Header::parse(&short_lengths), None);
    }

    #[test]
    fn headers_with_start_codes_are_read_and_written() {
        let header = Header::parse(&RECORD).expect("understood");
        let other = Header::parse(&[0, 0, 0, 1, 0x67, 77, 0, 31, 0x40, 0, 0, 1, 0x68, 0x40]).expect("understood");
        assert_eq!((other.form, other.profile(), other.free_id()), (Form::StartCodes, Some(77), Some(2)));
        let both = Header::parse(&header.with(&other)).expect("understood");
        assert_eq!(both.sets.len(), 5);
        assert_eq!(both.free_id(), Some(2));
    }

    #[test]
    fn numbers_are_read_as_the_standard_writes_them() {
        for (bytes, expected) in [(&[0x80][..], 0), (&[0x40], 1), (&[0x60], 2), (&[0x20], 3), (&[0x01, 0x00], 127)] {
            assert_eq!(exp_golomb(bytes), Some(expected), "{bytes:?}");
        }
        assert_eq!(exp_golomb(&[0, 0, 0]), None);
        assert_eq!(exp_golomb(&[0x01]), None);
    }

    #[test]
    fn packets_tell_where_decoding_can_begin_and_which_sets_they_bring() {
        let header = Header::parse(&RECORD).expect("understood");
        assert!(header.is_idr(&[0, 0, 0, 2, 9, 0x10, 0, 0, 0, 2, 0x65, 1]));
        assert!(!header.is_idr(&[0, 0, 0, 2, 0x41, 1]));
        assert!(!header.is_idr(&[0, 0, 0, 9, 0x65, 1]), "cut");
        assert!(header.covers(&[0, 0, 0, 2, 0x68, 0x20, 0, 0, 0, 2, 0x65, 1]));
        assert!(!header.covers(&[0, 0, 0, 2, 0x68, 0x21, 0, 0, 0, 2, 0x65, 1]));
    }

    #[test]
    fn lengths_become_start_codes_in_place() {
        let mut packet = [0, 0, 0, 2, 9, 0x10, 0, 0, 0, 1, 0x65];
        assert!(lengths_to_start_codes(&mut packet));
        assert_eq!(packet, [0, 0, 0, 1, 9, 0x10, 0, 0, 0, 1, 0x65]);
        assert!(!lengths_to_start_codes(&mut [0, 0, 0, 9, 1]));
        assert!(!lengths_to_start_codes(&mut [0, 0, 1]));
    }
}
