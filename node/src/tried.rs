//! What the runs of one attempt have shown so far: each may find that it has to be done again, knowing more.

/// What a run that was in vain has shown.
pub enum Found {
    /// The index needs this many bytes.
    IndexBytes(u64),
    /// Packets cannot be copied, for this reason.
    Uncopyable(String),
    /// Pictures cannot be encoded in hardware, for this reason.
    NoHardware(String),
}

/// What the runs of an attempt so far have shown.
#[derive(Clone, Default)]
pub struct Tried {
    /// How long the index is, in bytes.
    pub index_bytes: Option<u64>,
    /// Why nothing can be copied.
    pub uncopyable: Option<String>,
    /// Why nothing is encoded in hardware.
    pub no_hardware: Option<String>,
}

impl Tried {
    /// With what one more run has shown. None when the same shows twice: then it would go on for ever.
    pub fn and(self, found: Found) -> Option<Self> {
        match found {
            Found::IndexBytes(needed) if self.index_bytes.is_none() => Some(Self { index_bytes: Some(needed), ..self }),
            // What is encoded has another index.
            Found::Uncopyable(why) if self.uncopyable.is_none() => {
                Some(Self { index_bytes: None, uncopyable: Some(why), ..self })
            }
            Found::NoHardware(why) if self.no_hardware.is_none() => {
                Some(Self { index_bytes: None, no_hardware: Some(why), ..self })
            }
            Found::IndexBytes(_) | Found::Uncopyable(_) | Found::NoHardware(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_repeated_while_each_shows_something_new() {
        let failed = || Found::NoHardware("the hardware encoder h264_nvenc failed".into());
        let uncopyable = || Found::Uncopyable("a picture has no time".into());
        let tried = Tried::default().and(Found::IndexBytes(5)).expect("again, with room");
        let tried = tried.and(failed()).expect("again, in software");
        assert_eq!(tried.index_bytes, None, "software may make other packets");
        let tried = tried.and(uncopyable()).expect("again, encoded");
        assert!(tried.no_hardware.is_some(), "what has failed is not tried again");
        let tried = tried.and(Found::IndexBytes(6)).expect("again, with room for that");
        for found in [failed(), uncopyable(), Found::IndexBytes(7)] {
            assert!(tried.clone().and(found).is_none(), "it would go on for ever");
        }
    }
}
