//! Points in time. Nothing here reads a clock: callers pass the time in.

use serde::{Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// This many milliseconds later, at most the end of time.
    #[must_use]
    pub const fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since then, 0 when it is still to come.
    pub const fn since(self, earlier: Self) -> i64 {
        let ms = self.0.saturating_sub(earlier.0);
        if ms < 0 { 0 } else { ms }
    }

    /// ISO 8601 in UTC with milliseconds, as API section 1 has it.
    pub fn to_iso(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => format!("{time:.3}"),
            Err(_) => self.0.to_string(),
        }
    }
}

impl Serialize for UnixMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_iso())
    }
}

#[cfg(feature = "openapi")]
impl schemars::JsonSchema for UnixMs {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}

#[cfg(test)]
mod tests {
    use super::UnixMs;

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(UnixMs(0).to_iso(), "1970-01-01T00:00:00.000Z");
        assert_eq!(UnixMs(1_700_000_000_120).to_iso(), "2023-11-14T22:13:20.120Z");
    }
}
