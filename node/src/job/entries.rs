//! What containers say of their tracks and libav keeps to itself. The index of an MP4 or MOV: whether they are encrypted,
//! and whether they go on under another sample entry, which is where the codec's header stands (ISO 14496-12, section
//! 8.5.2). The packets of a transport stream: whether they are scrambled.

use std::{collections::BTreeSet, io, ops::Range};

use xora_av::ReadAt;

use crate::job::look::{Head, box_at, find, number, read_full};

/// What the sample entries of one track say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its ID.
    pub id: u64,
    /// Four-character codes of its sample entries that are encrypted.
    pub encrypted: Option<[u8; 4]>,
    /// Whether its index puts samples under entries that differ.
    pub changes: bool,
    /// The codes of the first two entries with samples that are of different codecs.
    pub codecs: Option<[[u8; 4]; 2]>,
}

/// Top-level boxes, tracks and entries that are looked at; files have about ten of each.
const MOST: usize = 1000;
/// Bytes of an entry that are compared: the header of a codec has about a hundred.
const ENTRY: u64 = 64 << 10;

/// The tracks of an MP4 or MOV, in order; of a file without an index, none. In a fragmented file each fragment says
/// which entry it uses, so that only its packets tell of a change.
pub fn tracks(source: &mut dyn ReadAt) -> io::Result<Vec<Track>> {
    let mut found = Vec::new();
    let Some(mut index) = movie(source)? else { return Ok(found) };
    while let Some(track) = find(source, index.clone(), *b"trak")?.filter(|_| found.len() < MOST) {
        index.start = track.end;
        let Some(header) = find(source, track.clone(), *b"tkhd")? else { continue };
        let id = number(source, header.start, [12, 20], [4, 4])?;
        let mut table = Some(track);
        for kind in [*b"mdia", *b"minf", *b"stbl"] {
            table = table.map(|within| find(source, within, kind)).transpose()?.flatten();
        }
        if let Some(table) = table {
            found.push(read_track(source, id, table)?);
        }
    }
    Ok(found)
}

fn movie(source: &mut dyn ReadAt) -> io::Result<Option<Range<u64>>> {
    let mut position = 0;
    for _ in 0..MOST {
        match box_at(source, position)? {
            Some(Head { kind, body, end }) if kind == *b"moov" => return Ok(Some(body..end)),
            Some(Head { end, .. }) if end < u64::MAX => position = end,
            Some(_) | None => break,
        }
    }
    Ok(None)
}

fn read_track(source: &mut dyn ReadAt, id: u64, table: Range<u64>) -> io::Result<Track> {
    let entries = entries(source, table.clone())?;
    let encrypted = entries.iter().map(|entry| entry.kind).find(|kind| is_encrypted(*kind));
    let used = if entries.len() > 1 { used(source, table, entries.len())? } else { Vec::new() };
    let mut used = used.into_iter().map(|number| &entries[number]);
    let first = used.next();
    let (mut changes, mut codecs) = (false, None);
    for other in used {
        let Some(first) = first else { break };
        changes |= content(source, first)? != content(source, other)?;
        codecs = codecs.or((!is_same_codec(first.kind, other.kind)).then_some([first.kind, other.kind]));
    }
    Ok(Track { id, encrypted, changes, codecs })
}

/// The sample entries of a track.
fn entries(source: &mut dyn ReadAt, table: Range<u64>) -> io::Result<Vec<Head>> {
    let mut entries = Vec::new();
    let Some(list) = find(source, table, *b"stsd")? else { return Ok(entries) };
    let count = number(source, list.start, [4, 4], [4, 4])?;
    let mut position = list.start + 8;
    while (entries.len() as u64) < count.min(MOST as u64) && position < list.end {
        let Some(entry) = box_at(source, position)? else { break };
        position = entry.end;
        entries.push(entry);
    }
    Ok(entries)
}

/// Which entries, counted from 0, samples are put under, in the order of their first use (section 8.7.4).
fn used(source: &mut dyn ReadAt, table: Range<u64>, entries: usize) -> io::Result<Vec<usize>> {
    const ROW: usize = 12;
    let mut used: Vec<usize> = Vec::new();
    let Some(list) = find(source, table, *b"stsc")? else { return Ok(used) };
    let mut left = number(source, list.start, [4, 4], [4, 4])?;
    let (mut position, mut rows) = (list.start + 8, [0; 1024 * ROW]);
    while left > 0 && position < list.end && used.len() < entries {
        let read = read_full(source, position, &mut rows)?;
        for row in rows[..read].chunks_exact(ROW).take(usize::try_from(left).unwrap_or(usize::MAX)) {
            let [.., e0, e1, e2, e3] = row else { break };
            // Counted from 1.
            let number = (u32::from_be_bytes([*e0, *e1, *e2, *e3]) as usize).wrapping_sub(1);
            if number < entries && !used.contains(&number) {
                used.push(number);
            }
        }
        left = left.saturating_sub((read / ROW) as u64);
        position += rows.len() as u64;
        if read < rows.len() {
            break;
        }
    }
    Ok(used)
}

/// What an entry holds.
fn content(source: &mut dyn ReadAt, entry: &Head) -> io::Result<Vec<u8>> {
    let length = entry.end.saturating_sub(entry.body).min(ENTRY);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = read_full(source, entry.body, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The PIDs of a transport stream of whose packets in the first bytes none is clear (ISO 13818-1, section 2.4.3.2).
pub fn scrambled(source: &mut dyn ReadAt) -> io::Result<Vec<i32>> {
    /// Bytes that are looked at, and that were read to open it.
    const HEAD: usize = 64 << 10;
    const SYNC: u8 = 0x47;
    let mut bytes = vec![0; HEAD];
    let length = read_full(source, 0, &mut bytes)?;
    bytes.truncate(length);
    // Plain, with a time before each packet, with a checksum behind it.
    let forms = [(0, 188), (4, 192), (0, 204)];
    let is_right = |(first, step): &(usize, usize)| (0..3).all(|n| bytes.get(first + n * step) == Some(&SYNC));
    let Some((first, step)) = forms.into_iter().find(is_right) else { return Ok(Vec::new()) };
    let (mut scrambled, mut clear) = (BTreeSet::new(), BTreeSet::new());
    for packet in bytes[first..].chunks(step) {
        // Only what has a payload can be scrambled.
        if let [SYNC, high, low, flags, ..] = packet
            && flags & 0x10 != 0
        {
            let pid = i32::from(high & 0x1f) << 8 | i32::from(*low);
            if flags & 0xc0 == 0 {
                clear.insert(pid)
            } else {
                scrambled.insert(pid)
            };
        }
    }
    Ok(scrambled.difference(&clear).copied().collect())
}

/// Codes of protected entries: of Common Encryption (ISO 23001-7) and its kin in ISO 14496-12 section 8.12, of FairPlay,
/// and of Audible.
fn is_encrypted(kind: [u8; 4]) -> bool {
    matches!(&kind, b"encv" | b"enca" | b"enct" | b"encs" | b"encm" | b"enc3" | b"drmi" | b"drms" | b"drmt" | b"p608")
        || matches!(&kind, b"aavd" | b"aax ")
}

/// Whether one decoder takes both. Cameras mix the kinds of ProRes and of DV within one track.
fn is_same_codec(one: [u8; 4], other: [u8; 4]) -> bool {
    let family = |kind: &[u8; 4]| kind.starts_with(b"ap") || kind.starts_with(b"dv") || kind.starts_with(b"AV");
    one == other || (family(&one) && one[..2] == other[..2])
}
