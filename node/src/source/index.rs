//! Where the index of an MP4 or MOV stands, from its first bytes: it is read whole before anything else, so it is
//! fetched in one go, wherever it is.

use std::ops::Range;

/// A larger index is left to plain reading ahead, in bytes.
const MOST: u64 = 16 << 20;

/// What is read of the media behind an index in front, to find out what they are; in bytes.
const FIRST_MEDIA: u64 = 16 << 10;

/// The place of `moov` and of the first media behind it, or of all that follows the first `mdat` when `moov` has not come
/// before.
pub fn of_mp4(head: &[u8], size: u64) -> Option<Range<u64>> {
    let mut at = 0;
    loop {
        let (kind, length) = top_box(head, at)?;
        let end = if length == 0 { size } else { at.checked_add(length)? };
        let wanted = match &kind {
            b"moov" => at..end.saturating_add(FIRST_MEDIA).min(size),
            b"mdat" => end..size,
            b"ftyp" | b"free" | b"skip" | b"wide" | b"styp" | b"sidx" | b"uuid" | b"pdin" | b"pnot" => {
                at = end;
                continue;
            }
            _ => return None,
        };
        return (!wanted.is_empty() && wanted.end - wanted.start <= MOST).then_some(wanted);
    }
}

/// Kind and length of the box at an offset; length 0 means up to the end.
fn top_box(head: &[u8], at: u64) -> Option<([u8; 4], u64)> {
    let head = head.get(usize::try_from(at).ok()?..)?;
    let (length, rest) = head.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    match u32::from_be_bytes(*length) {
        1 => rest.first_chunk::<8>().map(|long| (*kind, u64::from_be_bytes(*long))).filter(|(_, long)| *long >= 16),
        0 => Some((*kind, 0)),
        short => (short >= 8).then_some((*kind, short.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(list: &[(&[u8; 4], u32)]) -> Vec<u8> {
        let mut head = Vec::new();
        for (kind, length) in list {
            head.extend_from_slice(&length.to_be_bytes());
            head.extend_from_slice(*kind);
            if *kind != b"mdat" {
                head.resize(head.len() + *length as usize - 8, 0);
            }
        }
        head
    }

    #[test]
    fn the_index_is_found_in_front_and_behind() {
        assert_eq!(of_mp4(&boxes(&[(b"ftyp", 24), (b"moov", 500)]), 100_000), Some(24..524 + FIRST_MEDIA));
        assert_eq!(of_mp4(&boxes(&[(b"ftyp", 24), (b"moov", 500)]), 600), Some(24..600));
        assert_eq!(of_mp4(&boxes(&[(b"ftyp", 24), (b"free", 8), (b"mdat", 9_000)]), 10_000), Some(9_032..10_000));
    }

    #[test]
    fn what_is_not_an_mp4_or_has_no_place_for_an_index_gives_nothing() {
        assert_eq!(of_mp4(b"RIFF....WAVE", 10_000), None);
        assert_eq!(of_mp4(&boxes(&[(b"ftyp", 24), (b"mdat", 0)]), 10_000), None);
        assert_eq!(of_mp4(&boxes(&[(b"ftyp", 24), (b"mdat", u32::MAX)]), 10_000), None);
        assert_eq!(of_mp4(&[0, 0, 0, 1, b'm', b'd', b'a', b't', 0, 0, 0, 0, 0, 0, 0, 0], 100), None);
        assert_eq!(of_mp4(&[], 0), None);
    }
}
