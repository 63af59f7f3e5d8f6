//! Files that callers upload in parts, each to name as the input of jobs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    id::Id,
    protocol::{MAX_PART, PartTarget},
    request::{Field, Fields, Invalid},
    time::UnixMs,
};

/// Largest file that fits into its parts, in bytes.
pub const MAX_BYTES: u64 = MAX_PARTS * MAX_PART;

/// Most files of one key that no job has named yet.
pub const MAX_UNUSED: u64 = 100;

/// How long a file stays after the last job that named it was over, in milliseconds.
pub const fn kept_ms(input_retention_days: u32) -> i64 {
    input_retention_days as i64 * 24 * 3600 * 1000
}

/// How often the jobs that named a file are asked whether they are over, in milliseconds.
pub const LOOK_MS: i64 = 3600 * 1000;

/// How old a job is that nobody knows, in milliseconds, before it counts as deleted: until then it may be on its way, because
/// a file is given to a job before the job is stored.
pub const ON_ITS_WAY_MS: i64 = 10 * 60 * 1000;

/// What becomes of a file when it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It stays, and is looked at again then.
    Keep(UnixMs),
    /// It is deleted.
    Delete,
}

impl Due {
    /// Judges a file of which a job that is not over may be in need, of whose other jobs the last was over at `over` (none
    /// if no job ever named it). It is kept for `kept_ms` after that, and looked at every `look_ms` before.
    pub fn of(in_use: bool, over: Option<UnixMs>, kept_ms: i64, look_ms: i64, now: UnixMs) -> Self {
        if in_use {
            return Self::Keep(now.plus(look_ms));
        }
        match over.map(|over| over.plus(kept_ms)) {
            Some(end) if now < end => Self::Keep(end),
            Some(_) | None => Self::Delete,
        }
    }
}

/// Smallest part but the last, in bytes: small enough to send again after a break.
const PART: u64 = 16 << 20;

/// Most parts: all their URLs stand in one answer.
const MAX_PARTS: u64 = 1_000;

/// The body of `POST /v1/uploads`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRequest {
    /// What the caller calls the file. Shown again, and nothing else.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
}

impl UploadRequest {
    /// Reads the body. `max` is the largest file that is taken, in bytes.
    pub fn parse(body: &Value, max: u64) -> Result<Self, Invalid> {
        let mut fields = Fields::of_body(body)?;
        let filename = fields.required("filename", filename);
        let size = fields.required("size", |field| field.bytes(1, max.min(MAX_BYTES)));
        fields.finish()?;
        let (Some(filename), Some(size)) = (filename, size) else {
            unreachable!("a required part that is missing has been noted as a problem")
        };
        Ok(Self { filename, size })
    }
}

fn filename(field: Field) -> Option<String> {
    match field.string() {
        Some(text) if text.chars().any(char::is_control) => field.refuse("must not hold control characters"),
        _ => field.text(1, 255),
    }
}

/// How a file is cut: parts of equal size, the last one shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layout {
    /// Size of the file, in bytes; at least 1.
    pub size: u64,
    /// Bytes of every part but the last.
    pub part_size: u64,
}

impl Layout {
    /// The layout of a file of this size.
    pub fn of(size: u64) -> Self {
        const MIB: u64 = 1 << 20;
        let even = size.div_ceil(MAX_PARTS).next_multiple_of(MIB);
        Self { size, part_size: even.clamp(PART, MAX_PART) }
    }

    /// How many parts there are; they are numbered from 1.
    pub fn parts(self) -> u32 {
        u32::try_from(self.size.div_ceil(self.part_size)).unwrap_or(u32::MAX)
    }

    /// Bytes of a part, if there is one of this number.
    pub fn bytes_of(self, number: u32) -> Option<u64> {
        let before = self.part_size * u64::from(number.checked_sub(1)?);
        self.size.checked_sub(before).filter(|left| *left > 0).map(|left| left.min(self.part_size))
    }

    /// The numbers that are not among those that arrived.
    pub fn missing(self, arrived: &[u32]) -> Vec<u32> {
        (1..=self.parts()).filter(|number| !arrived.contains(number)).collect()
    }
}

/// An upload as callers see it, when it is opened and whenever they ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "Upload"))]
#[serde(rename_all = "camelCase")]
pub struct UploadView {
    /// What a job names as `input.uploadId`.
    pub upload_id: Id,
    /// What the caller calls the file.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of every part but the last.
    pub part_size: u64,
    /// The parts that are there.
    pub arrived: Vec<u32>,
    /// Where the others go, by `PUT`.
    pub parts: Vec<PartTarget>,
    /// When it is deleted, unless a job names it. A file that jobs named is not deleted before this time, nor while one of
    /// them waits or runs.
    pub expires_at: UnixMs,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_file_is_cut_into_equal_parts_that_storage_takes() {
        for size in [1, PART - 1, PART, PART + 1, GIB, 16 * GIB, 64 * GIB, MAX_BYTES] {
            let layout = Layout::of(size);
            let lengths: Vec<_> = (1..=layout.parts()).filter_map(|number| layout.bytes_of(number)).collect();
            assert_eq!(lengths.iter().sum::<u64>(), size);
            assert_eq!(lengths.len(), layout.parts() as usize, "{size}");
            assert!(lengths.len() as u64 <= MAX_PARTS, "{size}");
            let (last, others) = lengths.split_last().expect("one part at least");
            assert!(others.iter().all(|length| *length == layout.part_size), "{size}");
            assert!((1..=layout.part_size).contains(last) && layout.part_size <= MAX_PART, "{size}");
            assert_eq!((layout.bytes_of(0), layout.bytes_of(layout.parts() + 1)), (None, None));
        }
    }

    #[test]
    fn a_file_outlives_every_job_that_named_it_by_as_long_as_inputs_are_kept() {
        let now = UnixMs(1_000_000);
        let of = |in_use, over| Due::of(in_use, over, 500, 60, now);
        assert_eq!(of(true, None), Due::Keep(now.plus(60)));
        assert_eq!(of(true, Some(UnixMs(0))), Due::Keep(now.plus(60)), "one job is over, another is not");
        assert_eq!(of(false, Some(now.plus(-499))), Due::Keep(now.plus(1)));
        assert_eq!(of(false, Some(now.plus(-500))), Due::Delete);
        assert_eq!(of(false, None), Due::Delete, "no job named it in time");
        assert_eq!(Due::of(false, Some(now), kept_ms(0), LOOK_MS, now), Due::Delete);
        assert_eq!(Due::of(false, Some(now), kept_ms(1), LOOK_MS, now), Due::Keep(now.plus(86_400_000)));
    }

    #[test]
    fn what_has_not_arrived_is_missing() {
        let layout = Layout::of(3 * PART + 5);
        assert_eq!(layout.missing(&[]), [1, 2, 3, 4]);
        assert_eq!(layout.missing(&[4, 2]), [1, 3]);
        assert!(layout.missing(&[1, 2, 3, 4]).is_empty());
    }

    #[test]
    fn a_request_names_a_file_and_a_size_within_the_limit() {
        let good = UploadRequest::parse(&json!({"filename": "a b.mov", "size": 5_000_000_000u64}), 64 * GIB);
        assert_eq!(good, Ok(UploadRequest { filename: "a b.mov".into(), size: 5_000_000_000 }));
        let table = [
            (json!({"size": 1}), "filename: is required"),
            (json!({"filename": "", "size": 1}), "filename: must be a string of 1 to 255 characters"),
            (json!({"filename": "a\nb", "size": 1}), "filename: must not hold control characters"),
            (json!({"filename": "a", "size": 0}), "size: must be 1 to 1000, in bytes"),
            (json!({"filename": "a", "size": 1001}), "size: must be 1 to 1000, in bytes"),
            (json!({"filename": "a", "size": 1.5}), "size: must be 1 to 1000, in bytes"),
            (json!({"filename": "a", "size": "9"}), "size: must be 1 to 1000, in bytes, not a string"),
            (json!({"filename": "a", "size": 9, "parts": 2}), "parts: unknown field"),
        ];
        for (body, expected) in table {
            let found = UploadRequest::parse(&body, 1_000).expect_err("invalid").to_string();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
