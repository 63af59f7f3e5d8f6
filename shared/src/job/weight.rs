//! How much of a node a task takes. A node encodes few films at a time, because each encode fills its cores, and does
//! cheap work beside them.

use crate::{
    media::{FileType, Recipe, Wanted, WebReady},
    report::StrategyKind,
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// No moving pictures are encoded.
    Light,
    /// Moving pictures are encoded.
    Heavy,
    /// Only a plan can tell.
    Open,
}

impl Weight {
    /// What a request tells.
    pub fn of(wanted: &Wanted) -> Self {
        if wanted.format.file_type() == FileType::Audio {
            return Self::Light;
        }
        match &wanted.recipe {
            Recipe::Thumbnail(_) | Recipe::ExtractAudio(_) => Self::Light,
            Recipe::WebReady(WebReady { encode: None }) | Recipe::Transcode | Recipe::Trim(_) | Recipe::Concat => {
                Self::Open
            }
            Recipe::WebReady(WebReady { encode: Some(_) })
            | Recipe::Proxy(_)
            | Recipe::Compress(_)
            | Recipe::Resize(_) => Self::Heavy,
        }
    }

    #[must_use]
    /// What the plan tells beyond that. A smart cut encodes a second or two.
    pub fn planned(self, kind: StrategyKind) -> Self {
        match (self, kind) {
            (Self::Open, StrategyKind::Encode) => Self::Heavy,
            (
                Self::Open,
                StrategyKind::Passthrough | StrategyKind::Remux | StrategyKind::Copy | StrategyKind::SmartCut,
            ) => Self::Light,
            (Self::Light | Self::Heavy, _) => self,
        }
    }
}

/// Whether a plan of this kind reads an input whole. What needs a part only reads that part.
pub fn reads_whole(wanted: &Wanted, kind: StrategyKind) -> bool {
    let is_whole = match &wanted.recipe {
        Recipe::Thumbnail(_) | Recipe::ExtractAudio(_) => false,
        Recipe::Proxy(proxy) => proxy.cut.is_whole(),
        Recipe::Trim(trim) => trim.cut.is_whole(),
        Recipe::WebReady(_) | Recipe::Compress(_) | Recipe::Transcode | Recipe::Resize(_) | Recipe::Concat => true,
    };
    match kind {
        StrategyKind::Passthrough | StrategyKind::SmartCut => false,
        StrategyKind::Remux | StrategyKind::Copy | StrategyKind::Encode => is_whole,
    }
}

/// Whether a plan of this kind reads an input from its beginning to its end, if not every byte of it.
pub fn reads_through(wanted: &Wanted, kind: StrategyKind) -> bool {
    reads_whole(wanted, kind) || matches!(&wanted.recipe, Recipe::ExtractAudio(extract) if extract.cut.is_whole())
}

/// Whether any plan does so for this request: nothing is lost by fetching ahead before there is one. Several inputs
/// would be fetched long before they are read.
pub fn always_reads_through(wanted: &Wanted) -> bool {
    let may_not = matches!(wanted.recipe, Recipe::WebReady(WebReady { encode: None }) | Recipe::Concat);
    !may_not && reads_through(wanted, StrategyKind::Encode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{
        Compress, Cut, ExtractAudio, Format, RateControl, Scale, Thumbnail, Trim, VideoCodec, WebEncode,
    };

    #[test]
    fn what_must_encode_pictures_is_heavy_and_what_may_copy_them_is_open() {
        let compress = Recipe::Compress(Compress { rate: RateControl::Crf(28), codec: VideoCodec::H264 });
        let thumbnail = Recipe::Thumbnail(Thumbnail { seek_us: 0, width: None, height: None, quality: 85 });
        let web_ready = |encode| Recipe::WebReady(WebReady { encode });
        let chosen = WebEncode { rate: None, scale: Scale::default() };
        for (recipe, format, expected) in [
            (compress, Format::Mp4, Weight::Heavy),
            (thumbnail, Format::Jpg, Weight::Light),
            (web_ready(None), Format::Mp4, Weight::Open),
            (web_ready(Some(chosen)), Format::Mp4, Weight::Heavy),
            (Recipe::Trim(Trim { cut: Cut::default() }), Format::Webm, Weight::Open),
            (Recipe::Trim(Trim { cut: Cut::default() }), Format::Mp3, Weight::Light),
            (Recipe::Transcode, Format::Mov, Weight::Open),
            (Recipe::Transcode, Format::Aac, Weight::Light),
        ] {
            assert_eq!(Weight::of(&Wanted { recipe, format }), expected, "{format:?}");
        }
    }

    #[test]
    fn only_what_works_through_all_of_a_file_reads_it_whole() {
        let whole = |recipe, kind| reads_whole(&Wanted { recipe, format: Format::Mp4 }, kind);
        let web_ready = || Recipe::WebReady(WebReady { encode: None });
        assert!(whole(web_ready(), StrategyKind::Encode) && whole(web_ready(), StrategyKind::Remux));
        assert!(!whole(web_ready(), StrategyKind::Passthrough));
        assert!(whole(Recipe::Trim(Trim { cut: Cut::default() }), StrategyKind::Copy));
        let cut = Cut { start_us: 1, duration_us: None };
        assert!(!whole(Recipe::Trim(Trim { cut }), StrategyKind::Encode));
        let thumbnail = Thumbnail { seek_us: 0, width: None, height: None, quality: 85 };
        assert!(!whole(Recipe::Thumbnail(thumbnail.clone()), StrategyKind::Encode));
        let through = |recipe, kind| reads_through(&Wanted { recipe, format: Format::Mp3 }, kind);
        assert!(
            through(web_ready(), StrategyKind::Remux) && !through(Recipe::Thumbnail(thumbnail), StrategyKind::Encode)
        );
        let sound = |cut| Recipe::ExtractAudio(ExtractAudio { cut, copy: true });
        assert!(through(sound(Cut::default()), StrategyKind::Copy) && !through(sound(cut), StrategyKind::Copy));
        assert!(!whole(sound(Cut::default()), StrategyKind::Copy));
        let always = |recipe| always_reads_through(&Wanted { recipe, format: Format::Mp4 });
        assert!(always(Recipe::Transcode) && always(sound(Cut::default())) && !always(sound(cut)));
        assert!(!always(web_ready()) && !always(Recipe::Concat));
    }

    #[test]
    fn the_plan_settles_what_the_request_left_open_and_nothing_else() {
        use StrategyKind::{Copy, Encode, Passthrough, Remux, SmartCut};
        assert_eq!(Weight::Open.planned(Encode), Weight::Heavy);
        for kind in [Passthrough, Remux, Copy, SmartCut] {
            assert_eq!(Weight::Open.planned(kind), Weight::Light, "{kind:?}");
            assert_eq!(Weight::Heavy.planned(kind), Weight::Heavy, "{kind:?}");
        }
        assert_eq!(Weight::Light.planned(Encode), Weight::Light);
    }
}
