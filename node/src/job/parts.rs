//! A muxer's bytes as the equal parts of a multipart upload, sent while they are made.
//!
//! A muxer writes forward and goes back to patch what it wrote: an index at the head, a length. So the first
//! `head_parts` parts stay in memory until the end; what is behind them is sent as soon as a part is full, and cannot be
//! patched any more. Every part but the last has the same size, whatever the muxer does.

use std::{cell::RefCell, io, rc::Rc};

use xora_av::WriteAt;

/// Takes a finished part: its number, from 1, and its bytes.
pub type SendPart = Box<dyn FnMut(u32, Vec<u8>) -> io::Result<()>>;

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The output would have more bytes than allowed.
    TooLarge,
    /// The muxer went back behind the head.
    Sent,
    /// The supervisor did not take a part.
    Gone,
}

/// See the module.
pub struct Parts {
    part_size: usize,
    /// Length of the head in bytes, a multiple of `part_size`.
    head_limit: usize,
    max_bytes: u64,
    head: Vec<u8>,
    /// The unfinished part behind the head.
    tail: Vec<u8>,
    /// The number that `tail` will have.
    tail_number: u32,
    send: SendPart,
    refusal: Option<Refusal>,
    /// What is written from a byte of the output on, while it is held back.
    held: Option<(u64, Vec<u8>)>,
}

impl Parts {
    /// Parts of `part_size` bytes of which the first `head_parts` can be patched until the end.
    pub fn new(part_size: usize, head_parts: u32, max_bytes: u64, send: SendPart) -> Self {
        Self {
            part_size,
            head_limit: part_size * head_parts as usize,
            max_bytes,
            head: Vec::new(),
            tail: Vec::new(),
            tail_number: head_parts + 1,
            send,
            refusal: None,
            held: None,
        }
    }

    /// Keeps so many bytes at the start patchable instead, or a few more. Only before anything is written.
    pub fn keep_head(&mut self, bytes: u64) {
        if self.bytes() == 0 {
            let parts = bytes.div_ceil(self.part_size as u64).max(1);
            self.head_limit = self.part_size.saturating_mul(usize::try_from(parts).unwrap_or(usize::MAX));
            self.tail_number = u32::try_from(parts).unwrap_or(u32::MAX).saturating_add(1);
        }
    }

    /// Holds back everything that will be written behind the furthest byte so far.
    pub fn hold(&mut self) {
        self.held = Some((self.bytes(), Vec::new()));
    }

    /// What was held back, and where it belongs; from now on bytes are taken as before.
    pub fn let_go(&mut self) -> Option<(u64, Vec<u8>)> {
        self.held.take()
    }

    /// What can still be patched.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Why a write was refused, if one was.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The most bytes that are taken.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Bytes so far: where the furthest one ends.
    pub fn bytes(&self) -> u64 {
        if self.head.len() < self.head_limit { self.head.len() as u64 } else { self.tail_end() }
    }

    /// Sends what is left: the last part, then the head.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.tail.is_empty() {
            let last = std::mem::take(&mut self.tail);
            self.pass_on(last)?;
        }
        let mut number = 0;
        let mut rest = std::mem::take(&mut self.head);
        while !rest.is_empty() {
            let next = if rest.len() > self.part_size { rest.split_off(self.part_size) } else { Vec::new() };
            number += 1;
            (self.send)(number, rest).inspect_err(|_| self.refusal = Some(Refusal::Gone))?;
            rest = next;
        }
        Ok(())
    }

    fn tail_end(&self) -> u64 {
        u64::from(self.tail_number - 1) * self.part_size as u64 + self.tail.len() as u64
    }

    fn write_head(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.head.len() < end {
            self.head.resize(end, 0);
        }
        self.head[offset..end].copy_from_slice(bytes);
    }

    fn write_tail(&mut self, offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        if offset != self.tail_end() {
            return Err(self.refuse(Refusal::Sent));
        }
        // Behind the head, the head is whole: a muxer may have skipped its end.
        self.head.resize(self.head_limit, 0);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.part_size - self.tail.len()));
            self.tail.extend_from_slice(now);
            bytes = later;
            if self.tail.len() == self.part_size {
                let full = std::mem::replace(&mut self.tail, Vec::with_capacity(self.part_size));
                self.pass_on(full)?;
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, part: Vec<u8>) -> io::Result<()> {
        let number = self.tail_number;
        self.tail_number += 1;
        (self.send)(number, part).inspect_err(|_| self.refusal = Some(Refusal::Gone))
    }

    fn refuse(&mut self, why: Refusal) -> io::Error {
        self.refusal = Some(why);
        io::ErrorKind::Other.into()
    }
}

impl WriteAt for Parts {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.max_bytes);
        if end.is_none() {
            return Err(self.refuse(Refusal::TooLarge));
        }
        let mut bytes = bytes;
        if let Some((from, held)) = &mut self.held {
            let (now, later) =
                bytes.split_at(bytes.len().min(usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX)));
            let at = usize::try_from(offset.max(*from) - *from).unwrap_or(usize::MAX);
            held.resize(held.len().max(at.saturating_add(later.len())), 0);
            held[at..at + later.len()].copy_from_slice(later);
            bytes = now;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        match usize::try_from(offset) {
            Ok(place) if place < self.head_limit => {
                let (head, tail) = bytes.split_at(bytes.len().min(self.head_limit - place));
                self.write_head(place, head);
                if tail.is_empty() { Ok(()) } else { self.write_tail(self.head_limit as u64, tail) }
            }
            _ => self.write_tail(offset, bytes),
        }
    }
}

/// A second handle, for the muxer, which keeps what it is given.
pub struct Shared(pub Rc<RefCell<Parts>>);

impl WriteAt for Shared {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.borrow_mut().write_at(offset, bytes)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the numbers are small")]
mod tests {
    use super::*;

    type Sent = Rc<RefCell<Vec<(u32, Vec<u8>)>>>;

    /// Small numbers from a seed, the same every time.
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        }
    }

    fn collecting(part_size: usize, head_parts: u32, max: u64) -> (Parts, Sent) {
        let sent = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&sent);
        let send = Box::new(move |number, bytes| {
            sink.borrow_mut().push((number, bytes));
            Ok(())
        });
        (Parts::new(part_size, head_parts, max, send), sent)
    }

    fn joined(sent: &RefCell<Vec<(u32, Vec<u8>)>>, part_size: usize) -> Vec<u8> {
        let mut sent = sent.borrow_mut();
        sent.sort_by_key(|(number, _)| *number);
        for (index, (number, bytes)) in sent.iter().enumerate() {
            assert_eq!(*number as usize, index + 1, "part numbers have no gap");
            assert!(bytes.len() == part_size || (index + 1 == sent.len() && !bytes.is_empty()));
        }
        sent.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    #[test]
    fn any_pattern_of_writes_within_the_head_gives_the_bytes_of_a_plain_file() {
        for seed in 0..500 {
            let mut number = numbers(seed);
            let part_size = 1 + number(16) as usize;
            let head_parts = 1 + number(3) as u32;
            let head = part_size as u64 * u64::from(head_parts);
            let (mut parts, sent) = collecting(part_size, head_parts, 1 << 20);
            let mut plain = Vec::new();
            for _ in 0..number(40) {
                let back = number(3) == 0;
                let offset = if back { number(head.min(plain.len() as u64 + 1)) } else { plain.len() as u64 };
                let longest = if back { head - offset } else { 30 };
                let bytes: Vec<u8> = (0..number(longest.max(1))).map(|_| number(256) as u8).collect();
                parts.write_at(offset, &bytes).expect("taken");
                let end = offset as usize + bytes.len();
                plain.resize(plain.len().max(end), 0);
                plain[offset as usize..end].copy_from_slice(&bytes);
            }
            assert_eq!(parts.bytes(), plain.len() as u64, "seed {seed}");
            parts.finish().expect("sent");
            assert_eq!(joined(&sent, part_size), plain, "seed {seed}");
        }
    }

    #[test]
    fn a_place_that_is_skipped_over_is_zeros_until_it_is_written() {
        let (mut parts, sent) = collecting(4, 2, 100);
        parts.write_at(6, b"media").expect("taken");
        parts.write_at(0, b"ix").expect("taken");
        parts.finish().expect("sent");
        assert_eq!(joined(&sent, 4), b"ix\0\0\0\0media");
    }

    #[test]
    fn what_is_held_back_can_be_put_elsewhere() {
        let (mut parts, sent) = collecting(4, 9, 100);
        parts.keep_head(5);
        parts.write_at(0, b"....media").expect("taken");
        parts.hold();
        for (offset, bytes) in [(9, b"inde_".as_slice()), (3, b"M"), (13, b"x"), (14, b"")] {
            parts.write_at(offset, bytes).expect("taken");
        }
        assert_eq!((parts.head(), parts.bytes()), (b"...Mmedi".as_slice(), 9));
        assert_eq!(parts.let_go(), Some((9, b"index".to_vec())));
        parts.write_at(9, b"more").expect("taken");
        parts.finish().expect("sent");
        assert_eq!(joined(&sent, 4), b"...Mmediamore");
    }

    #[test]
    fn what_fits_one_part_is_exactly_one_part() {
        let (mut parts, sent) = collecting(10, 2, 100);
        parts.write_at(0, b"0123456789").expect("taken");
        parts.finish().expect("sent");
        assert_eq!(sent.borrow().len(), 1);
        assert_eq!(sent.borrow()[0].0, 1);
    }

    #[test]
    fn going_back_behind_the_head_is_refused() {
        let (mut parts, _) = collecting(4, 1, 100);
        parts.write_at(0, b"0123456789").expect("taken");
        assert!(parts.write_at(5, b"x").is_err());
        assert_eq!(parts.refusal(), Some(Refusal::Sent));
    }

    #[test]
    fn more_bytes_than_allowed_are_refused() {
        let (mut parts, _) = collecting(4, 1, 9);
        parts.write_at(0, b"012345678").expect("taken");
        assert!(parts.write_at(9, b"9").is_err());
        assert_eq!(parts.refusal(), Some(Refusal::TooLarge));
    }
}
