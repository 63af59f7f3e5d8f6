//! From the shape of a decoded picture to the chain of filters that makes it fit the output. Pure functions.

use std::fmt::Write as _;

use xora_av::{Color, Orientation, PictureShape, Rational};

use crate::job::fault::{Done, Fault};

/// What the output's pictures must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// How stored pictures are turned.
    pub orientation: Orientation,
    /// Whether fields are woven into whole pictures.
    pub deinterlace: bool,
    /// Whether this libav can map high dynamic range to standard.
    pub can_tonemap: bool,
    /// The size, when it is decided already: wanted by the caller, or begun with.
    pub size: Size,
    /// What the encoder takes.
    pub pixels: Pixels,
}

/// See [`Picture::size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As the input, square pixels.
    AsInput,
    /// This width, the height to match.
    Width(u32),
    /// This height, the width to match.
    Height(u32),
    /// As the input with square pixels, made smaller until it is within these sides.
    AtMost(u32, u32),
    /// Exactly this, stretched if need be.
    Exactly(u32, u32),
    /// This, with black bars where the shapes differ.
    Within(u32, u32),
}

/// Pixels that an encoder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// 8-bit 4:2:0 in limited range: what every player shows. Sides are even.
    Film,
    /// 8-bit 4:2:0 in full range with the matrix of BT.601, as JPEG files are by definition.
    Jpeg,
    /// 8-bit RGB.
    Rgb,
    /// 8-bit 4:2:0 in limited range with the matrix of BT.601, as WebP files are by definition; any size.
    Webp,
}

/// A chain of filters and what comes out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// In libav's graph language.
    pub text: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// What the numbers mean, to be said on every picture.
    pub color: Color,
    /// Whether high dynamic range was there and could not be mapped.
    pub hdr_left: bool,
}

impl Chain {
    /// Fails where what comes out has more pixels than this.
    pub fn within(self, limit: u64) -> Done<Self> {
        let (width, height) = (self.width, self.height);
        if u64::from(width) * u64::from(height) <= limit {
            return Ok(self);
        }
        Err(Fault::too_large(
            format!("the pictures would become {width}x{height}; the limit is {limit} pixels"),
            "--max-pixels",
        ))
    }
}

/// Aspects of a pixel beyond this, either way, are mistakes, not pictures.
const MOST_ASPECT: u64 = 10;

/// The chain for pictures of one shape. libav's scaler takes all monochrome pictures for full range, so that black of those
/// in limited range, which HEVC and AV1 have, would stay gray: they get colour planes first.
pub fn chain(shape: &PictureShape, want: &Picture) -> Chain {
    const LIMITED: i32 = 1;
    if shape.format.starts_with("gray") && shape.color.range == LIMITED {
        let format = if shape.format == "gray" { "yuv420p" } else { "yuv420p10le" };
        let coloured = PictureShape { format: format.to_owned(), ..shape.clone() };
        let rest = chain(&coloured, want);
        return Chain { text: format!("format={format},{}", rest.text), ..rest };
    }
    let hdr = shape.color.is_hdr();
    let tonemap = hdr && want.can_tonemap;
    let stored = stored_size(shape, want);
    let mut steps = Vec::new();
    if want.deinterlace {
        steps.push("bwdif=mode=send_frame:parity=auto:deint=interlaced".to_owned());
    }
    if tonemap {
        steps.push(tonemap_steps(shape.color));
    }
    steps.extend(fit(shape, want, stored, tonemap));
    steps.extend(want.orientation.filters().map(str::to_owned));
    // `scale` says of every picture that it is to be shown in the shape that it had.
    let is_changed = stored != (shape.width, shape.height);
    if shape.aspect.0 > 0 && (shape.aspect.0 != shape.aspect.1 || is_changed) {
        steps.push("setsar=1".to_owned());
    }
    if steps.is_empty() {
        steps.push("null".to_owned());
    }
    let (width, height) = if want.orientation.swaps_sides() { (stored.1, stored.0) } else { stored };
    let color = output_color(shape, want.pixels, tonemap);
    Chain { text: steps.join(","), width, height, color, hdr_left: hdr && !tonemap }
}

/// Makes what comes out of a chain for films another size, between black bars where the shapes differ, with colours by
/// another matrix.
pub fn fit_into(mut chain: Chain, (width, height): (u32, u32), color: Color) -> Chain {
    let (from, to) = (matrix_name(chain.color.matrix), matrix_name(color.matrix));
    let matrix = if from == to { String::new() } else { format!(":in_color_matrix={from}:out_color_matrix={to}") };
    if (chain.width, chain.height) != (width, height) {
        let size = format!("{width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2");
        let _ = write!(chain.text, ",scale={size}:flags=bicubic{matrix},pad={width}:{height}:(ow-iw)/2:(oh-ih)/2");
    } else if !matrix.is_empty() {
        let _ = write!(chain.text, ",scale=flags=bicubic{matrix}");
    }
    Chain { width, height, color, text: format!("{},setsar=1,format=yuv420p", chain.text), ..chain }
}

/// The size before turning.
fn stored_size(shape: &PictureShape, want: &Picture) -> (u32, u32) {
    // 4:2:0 halves the sides.
    let step = if want.pixels == Pixels::Film { 2 } else { 1 };
    let turn = |(width, height)| if want.orientation.swaps_sides() { (height, width) } else { (width, height) };
    let (width, height) = turn(square_size(shape, step));
    // An odd row or column is cut off, not squeezed, so every other pixel stays itself.
    let whole = |side: u32| (side - side % step).max(step);
    let wanted = match want.size {
        Size::AsInput => (width, height),
        Size::Width(wanted) => (wanted, proportion(height, whole(wanted), width, step)),
        Size::Height(wanted) => (proportion(width, whole(wanted), height, step), wanted),
        Size::AtMost(most_wide, most_high) => at_most((width, height), (most_wide, most_high), step),
        Size::Exactly(width, height) | Size::Within(width, height) => (width, height),
    };
    let (width, height) = turn(wanted);
    (whole(width), whole(height))
}

/// The size made smaller, with its aspect, until both sides fit.
fn at_most((width, height): (u32, u32), (most_wide, most_high): (u32, u32), step: u32) -> (u32, u32) {
    if width <= most_wide && height <= most_high {
        return (width, height);
    }
    let by_width = (most_wide, proportion(height, most_wide, width, step));
    if most_wide < width && by_width.1 <= most_high {
        by_width
    } else {
        (proportion(width, most_high, height, step).min(most_wide), most_high)
    }
}

/// The size with square pixels: a side grows, none shrinks, so no detail is lost.
fn square_size(shape: &PictureShape, step: u32) -> (u32, u32) {
    let Rational(wide, high) = shape.aspect;
    let (wide, high) = (u32::try_from(wide).unwrap_or(0), u32::try_from(high).unwrap_or(0));
    let absurd = u64::from(wide) > u64::from(high) * MOST_ASPECT || u64::from(high) > u64::from(wide) * MOST_ASPECT;
    if wide == 0 || high == 0 || absurd || wide == high {
        return (shape.width, shape.height);
    }
    if wide > high {
        (proportion(shape.width, wide, high, step), shape.height)
    } else {
        (shape.width, proportion(shape.height, high, wide, step))
    }
}

/// `side * times / by`, to the nearest multiple of `step`, at least that.
fn proportion(side: u32, times: u32, by: u32, step: u32) -> u32 {
    let by = u64::from(by.max(1)) * u64::from(step);
    let result = (u64::from(side) * u64::from(times) + by / 2) / by * u64::from(step);
    u32::try_from(result.max(step.into())).unwrap_or(u32::MAX)
}

/// Scaling, cropping and conversion of pixels; nothing where nothing is needed.
fn fit(shape: &PictureShape, want: &Picture, (width, height): (u32, u32), tonemapped: bool) -> Vec<String> {
    let same_size = (width, height) == (shape.width, shape.height);
    let only_odd = want.pixels == Pixels::Film
        && want.size == Size::AsInput
        && square_size(shape, 1) == (shape.width, shape.height)
        && (width, height) == (shape.width & !1, shape.height & !1);
    let converted = convert(shape, want.pixels, tonemapped);
    let mut steps = Vec::new();
    if only_odd && !same_size {
        steps.push(format!("crop={width}:{height}:0:0"));
    }
    match want.size {
        Size::Within(..) if !same_size => {
            steps.push(format!("scale={width}:{height}:force_original_aspect_ratio=decrease:flags=bicubic{converted}"));
            steps.push(format!("pad={width}:{height}:(ow-iw)/2:(oh-ih)/2"));
        }
        Size::AsInput | Size::Width(_) | Size::Height(_) | Size::AtMost(..) | Size::Exactly(..) | Size::Within(..) => {
            let size = if same_size || only_odd { String::new() } else { format!("w={width}:h={height}:") };
            if !size.is_empty() || !converted.is_empty() {
                steps.push(format!("scale={size}flags=bicubic{converted}"));
            }
        }
    }
    let format = pixel_format(want.pixels);
    if shape.format != format || tonemapped || !steps.is_empty() {
        steps.push(format!("format={format}"));
    }
    steps
}

/// Options of `scale` that convert range and matrix; none where both are right already.
fn convert(shape: &PictureShape, pixels: Pixels, tonemapped: bool) -> String {
    let rgb = is_rgb(&shape.format) && !tonemapped;
    let full = !tonemapped && is_full(shape);
    let matrix_in = match (rgb, tonemapped) {
        (true, _) => String::new(),
        (false, true) => ":in_color_matrix=bt709".to_owned(),
        (false, false) => format!(":in_color_matrix={}", matrix_name(assumed(shape).matrix)),
    };
    let range_in = if full { "full" } else { "limited" };
    match pixels {
        Pixels::Film if rgb => format!(":out_color_matrix={}:out_range=limited", matrix_name(assumed(shape).matrix)),
        Pixels::Film if full => ":in_range=full:out_range=limited".to_owned(),
        Pixels::Film => String::new(),
        Pixels::Jpeg if rgb => ":out_color_matrix=bt601:out_range=full".to_owned(),
        Pixels::Jpeg => format!("{matrix_in}:in_range={range_in}:out_color_matrix=bt601:out_range=full"),
        Pixels::Webp if rgb => ":out_color_matrix=bt601:out_range=limited".to_owned(),
        Pixels::Webp => format!("{matrix_in}:in_range={range_in}:out_color_matrix=bt601:out_range=limited"),
        Pixels::Rgb if rgb => String::new(),
        Pixels::Rgb => format!("{matrix_in}:in_range={range_in}"),
    }
}

fn pixel_format(pixels: Pixels) -> &'static str {
    match pixels {
        Pixels::Film | Pixels::Webp => "yuv420p",
        Pixels::Jpeg => "yuvj420p",
        Pixels::Rgb => "rgb24",
    }
}

/// PQ or HLG to standard range by way of linear light. All four tags are said, because `zscale` refuses to guess.
fn tonemap_steps(color: Color) -> String {
    let transfer = if color.transfer == 18 { "arib-std-b67" } else { "smpte2084" };
    let range = if color.is_full_range() { "full" } else { "limited" };
    format!(
        "zscale=tin={transfer}:min=bt2020nc:pin=bt2020:rin={range}:t=linear:npl=100,format=gbrpf32le,\
         zscale=p=bt709,tonemap=tonemap=hable:desat=0,zscale=t=bt709:m=bt709:p=bt709:r=limited,format=yuv420p"
    )
}

fn output_color(shape: &PictureShape, pixels: Pixels, tonemapped: bool) -> Color {
    let seen = if tonemapped { Color { range: 1, primaries: 1, transfer: 1, matrix: 1 } } else { assumed(shape) };
    match pixels {
        Pixels::Film => Color { range: 1, ..seen },
        Pixels::Jpeg => Color { range: 2, matrix: 5, ..seen },
        Pixels::Webp => Color { range: 1, matrix: 5, ..seen },
        Pixels::Rgb => Color { range: 2, matrix: 0, ..seen },
    }
}

/// What the picture says of its colours, and where it is silent what players assume: BT.709 above 576 lines, else
/// BT.601 (in its 525-line form, which differs from the other by less than the eye sees).
fn assumed(shape: &PictureShape) -> Color {
    let standard = if shape.width.min(shape.height) > 576 || shape.width > 1024 { 1 } else { 6 };
    let known = |said: i32| if matches!(said, 0 | 2 | 3) { standard } else { said };
    let color = shape.color;
    Color {
        range: if is_full(shape) { 2 } else { 1 },
        primaries: known(color.primaries),
        transfer: known(color.transfer),
        matrix: if is_rgb(&shape.format) { standard } else { known(color.matrix) },
    }
}

/// `scale`'s name of a matrix of H.273.
fn matrix_name(matrix: i32) -> &'static str {
    match matrix {
        1 => "bt709",
        4 => "fcc",
        7 => "smpte240m",
        9 | 10 => "bt2020",
        _ => "bt601",
    }
}

fn is_full(shape: &PictureShape) -> bool {
    shape.color.is_full_range() || shape.format.starts_with("yuvj")
}

fn is_rgb(format: &str) -> bool {
    ["rgb", "bgr", "gbr", "argb", "abgr", "pal8", "0rgb", "0bgr", "monob", "monow"]
        .iter()
        .any(|prefix| format.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(width: u32, height: u32, format: &str) -> PictureShape {
        PictureShape {
            width,
            height,
            format: format.to_owned(),
            aspect: Rational(1, 1),
            color: Color { range: 1, primaries: 1, transfer: 1, matrix: 1 },
            time_base: Rational(1, 1000),
            frame_rate: Rational(25, 1),
        }
    }

    fn film() -> Picture {
        Picture {
            orientation: Orientation::Upright,
            deinterlace: false,
            can_tonemap: true,
            size: Size::AsInput,
            pixels: Pixels::Film,
        }
    }

    #[test]
    fn a_picture_that_fits_is_left_alone() {
        let chain = chain(&shape(1280, 720, "yuv420p"), &film());
        assert_eq!((chain.text.as_str(), chain.width, chain.height), ("null", 1280, 720));
    }

    #[test]
    fn an_odd_size_loses_its_last_row_and_column() {
        let chain = chain(&shape(641, 359, "yuv420p"), &film());
        assert_eq!(chain.text, "crop=640:358:0:0,format=yuv420p,setsar=1");
        assert_eq!((chain.width, chain.height), (640, 358));
    }

    #[test]
    fn a_side_that_follows_the_other_is_even_and_nearest_to_the_aspect() {
        // 39.36, 39.04, 38.4 and 37.76 lines of 4:2:0, which come in twos.
        for (height, lines) in [(123, 40), (122, 40), (120, 38), (118, 38)] {
            let found = chain(&shape(1000, height, "yuv420p"), &Picture { size: Size::Width(320), ..film() });
            assert_eq!((found.width, found.height), (320, lines), "{height}");
            let still = Picture { size: Size::Width(320), pixels: Pixels::Rgb, ..film() };
            assert_eq!(chain(&shape(1000, height, "yuv420p"), &still).height, (height * 320 + 500) / 1000);
        }
        let found = chain(&shape(123, 1000, "yuv420p"), &Picture { size: Size::Height(320), ..film() });
        assert_eq!((found.width, found.height), (40, 320));
        let found = chain(&shape(1000, 1000, "yuv420p"), &Picture { size: Size::AtMost(99, 99), ..film() });
        assert_eq!((found.width, found.height), (98, 98), "never beyond what is asked for");
    }

    #[test]
    fn pixels_become_square_by_growing_a_side() {
        let mut wide = shape(720, 576, "yuv420p");
        wide.aspect = Rational(64, 45);
        let found = chain(&wide, &film());
        assert_eq!((found.width, found.height), (1024, 576));
        wide.aspect = Rational(1, 2);
        let found = chain(&wide, &film());
        assert_eq!((found.width, found.height), (720, 1152));
        wide.aspect = Rational(1, 100);
        assert_eq!(chain(&wide, &film()).height, 576, "absurd aspects are ignored");
    }

    #[test]
    fn a_stretched_picture_is_shown_stretched() {
        let exactly = Picture { size: Size::Exactly(160, 160), ..film() };
        let found = chain(&shape(320, 240, "yuv420p"), &exactly);
        assert_eq!(found.text, "scale=w=160:h=160:flags=bicubic,format=yuv420p,setsar=1");
    }

    #[test]
    fn a_turned_picture_changes_its_sides() {
        let turned = Picture { orientation: Orientation::Clockwise, ..film() };
        let found = chain(&shape(1920, 1080, "yuv420p"), &turned);
        assert_eq!((found.text.as_str(), found.width, found.height), ("transpose=clock", 1080, 1920));
        let narrow = Picture { size: Size::Width(540), ..turned };
        let found = chain(&shape(1920, 1080, "yuv420p"), &narrow);
        assert_eq!((found.width, found.height), (540, 960));
    }

    #[test]
    fn full_range_and_deep_pixels_are_converted() {
        let mut full = shape(640, 360, "yuvj420p");
        full.color.range = 2;
        assert_eq!(chain(&full, &film()).text, "scale=flags=bicubic:in_range=full:out_range=limited,format=yuv420p");
        assert_eq!(chain(&shape(640, 360, "yuv422p10le"), &film()).text, "format=yuv420p");
    }

    #[test]
    fn high_dynamic_range_is_mapped_where_libav_can() {
        let mut hdr = shape(3840, 2160, "yuv420p10le");
        hdr.color = Color { range: 1, primaries: 9, transfer: 16, matrix: 9 };
        let found = chain(&hdr, &film());
        assert!(found.text.contains("tonemap") && !found.hdr_left);
        assert_eq!(found.color, Color { range: 1, primaries: 1, transfer: 1, matrix: 1 });
        let cannot = Picture { can_tonemap: false, ..film() };
        let found = chain(&hdr, &cannot);
        assert!(!found.text.contains("tonemap") && found.hdr_left);
        assert_eq!(found.color.transfer, 16);
    }

    #[test]
    fn silence_about_colours_becomes_what_players_assume() {
        let mut silent = shape(1280, 720, "yuv420p");
        silent.color = Color::UNSPECIFIED;
        assert_eq!(chain(&silent, &film()).color.matrix, 1);
        silent.width = 640;
        silent.height = 480;
        assert_eq!(chain(&silent, &film()).color.matrix, 6);
    }

    #[test]
    fn a_changed_picture_is_fitted_between_bars() {
        let within = Picture { size: Size::Within(1280, 720), ..film() };
        let found = chain(&shape(640, 480, "yuv420p"), &within);
        assert!(found.text.starts_with("scale=1280:720:force_original_aspect_ratio=decrease"));
        assert_eq!((found.width, found.height), (1280, 720));
        assert_eq!(chain(&shape(1280, 720, "yuv420p"), &within).text, "null");
    }
}
