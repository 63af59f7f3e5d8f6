//! Frames to frames, through a graph of libav's filters with one way in and one way out.

use std::{ffi::CString, fmt::Write as _, ptr};

use ffmpeg_next::ffi;

use crate::{
    error::{Error, ErrorKind, Poll, Result, check, poll},
    frame::{Color, Frame},
    names::has_filter,
    time::Rational,
};

/// What a graph must know of the pictures that go in. A picture of another shape needs another graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureShape {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// libav's name of the pixel format.
    pub format: String,
    /// Width of a pixel over its height; 0 when unknown.
    pub aspect: Rational,
    /// What the numbers mean.
    pub color: Color,
    /// Unit of their times, in seconds.
    pub time_base: Rational,
    /// Pictures per second, a hint; 0 when unknown.
    pub frame_rate: Rational,
}

/// What a graph must know of the sound that goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioShape {
    /// Samples per second.
    pub sample_rate: u32,
    /// libav's name of the sample format.
    pub format: String,
    /// Channels.
    pub channels: u32,
    /// libav's name of the channel layout.
    pub layout: String,
    /// Unit of their times, in seconds.
    pub time_base: Rational,
}

/// A graph with its source and its sink. What must come out (`format=…`, `aformat=…`) is said in the graph's text, which
/// means the same to every version of libav.
pub struct Graph {
    filters: *mut ffi::AVFilterGraph,
    source: *mut ffi::AVFilterContext,
    sink: *mut ffi::AVFilterContext,
}

impl Graph {
    /// Builds a graph for pictures from a chain in libav's language.
    pub fn pictures(shape: &PictureShape, chain: &str, threads: u32) -> Result<Self> {
        let Rational(num, den) = shape.time_base;
        let aspect = if shape.aspect.0 > 0 { shape.aspect } else { Rational(0, 1) };
        let mut arguments = format!(
            "video_size={}x{}:pix_fmt={}:time_base={num}/{den}:pixel_aspect={}/{}",
            shape.width,
            shape.height,
            shape.format,
            aspect.0,
            aspect.1.max(1)
        );
        if shape.frame_rate.0 > 0 && shape.frame_rate.1 > 0 {
            let _ = write!(arguments, ":frame_rate={}/{}", shape.frame_rate.0, shape.frame_rate.1);
        }
        Self::build(("buffer", &arguments), ("buffersink", None), chain, threads)
    }

    /// Builds a graph for sound from a chain in libav's language.
    pub fn sound(shape: &AudioShape, chain: &str) -> Result<Self> {
        let Rational(num, den) = shape.time_base;
        let arguments = format!(
            "sample_rate={}:sample_fmt={}:channel_layout={}:time_base={num}/{den}",
            shape.sample_rate, shape.format, shape.layout
        );
        // Else what has more channels than any layout with a name would have to be mixed.
        Self::build(("abuffer", &arguments), ("abuffersink", Some("all_channel_counts=1")), chain, 1)
    }

    /// Gives it a frame, which is empty afterwards; `None` ends the stream.
    pub fn push(&mut self, frame: Option<&mut Frame>) -> Result<()> {
        let frame = frame.map_or(ptr::null_mut(), Frame::as_mut_ptr);
        // SAFETY: the source belongs to the live graph, which takes over the frame's references.
        check(unsafe { ffi::av_buffersrc_add_frame_flags(self.source, frame, 0) }, "filter").map(|_| ())
    }

    /// Ends the stream at this time, in the unit of what goes in: filters that count pictures must know how long the last
    /// one is shown.
    pub fn end_at(&mut self, time: i64) -> Result<()> {
        // SAFETY: the source belongs to the live graph.
        check(unsafe { ffi::av_buffersrc_close(self.source, time, 0) }, "filter").map(|_| ())
    }

    /// Takes the next frame; its times are in [`Self::time_base`].
    pub fn pull(&mut self, frame: &mut Frame) -> Result<Poll> {
        // SAFETY: the sink belongs to the live graph; the frame is released before it is overwritten.
        let code = unsafe {
            ffi::av_frame_unref(frame.as_mut_ptr());
            ffi::av_buffersink_get_frame(self.sink, frame.as_mut_ptr())
        };
        poll(code, "filter")
    }

    /// Cuts sound into frames of this many samples; the last may be shorter. 0 leaves them as they come.
    pub fn set_frame_size(&mut self, samples: u32) {
        // SAFETY: the sink belongs to the live graph.
        unsafe { ffi::av_buffersink_set_frame_size(self.sink, samples) }
    }

    /// Unit of the times of what comes out, in seconds.
    pub fn time_base(&self) -> Rational {
        // SAFETY: the sink belongs to the live, configured graph.
        unsafe { ffi::av_buffersink_get_time_base(self.sink) }.into()
    }

    /// Pictures per second of what comes out; 0 when unknown.
    pub fn frame_rate(&self) -> Rational {
        // SAFETY: the sink belongs to the live, configured graph.
        unsafe { ffi::av_buffersink_get_frame_rate(self.sink) }.into()
    }

    /// The source and the sink each with their arguments.
    fn build(source: (&str, &str), sink: (&str, Option<&str>), chain: &str, threads: u32) -> Result<Self> {
        // SAFETY: allocates; the result is checked.
        let graph = unsafe { ffi::avfilter_graph_alloc() };
        if graph.is_null() {
            return Err(Error::memory("allocate graph"));
        }
        let mut built = Self { filters: graph, source: ptr::null_mut(), sink: ptr::null_mut() };
        // SAFETY: fresh and ours.
        unsafe { (*graph).nb_threads = i32::try_from(threads).unwrap_or(1) }
        built.source = built.create(source.0, "in", Some(source.1))?;
        built.sink = built.create(sink.0, "out", sink.1)?;
        built.parse(chain)?;
        // SAFETY: the graph is complete.
        check(unsafe { ffi::avfilter_graph_config(graph, ptr::null_mut()) }, "configure graph")?;
        Ok(built)
    }

    fn create(&mut self, filter: &str, name: &str, arguments: Option<&str>) -> Result<*mut ffi::AVFilterContext> {
        let bad = |_| Error::new(ErrorKind::Other, "describe filter");
        let filter = CString::new(filter).map_err(bad)?;
        let name = CString::new(name).map_err(bad)?;
        let arguments = arguments.map(CString::new).transpose().map_err(bad)?;
        let mut context = ptr::null_mut();
        // SAFETY: the strings end with zero and are copied; the new filter belongs to our graph.
        let code = unsafe {
            let filter = ffi::avfilter_get_by_name(filter.as_ptr());
            if filter.is_null() {
                return Err(Error::new(ErrorKind::NoFilter, "find filter"));
            }
            let arguments = arguments.as_ref().map_or(ptr::null(), |text| text.as_ptr());
            ffi::avfilter_graph_create_filter(
                &raw mut context,
                filter,
                name.as_ptr(),
                arguments,
                ptr::null_mut(),
                self.filters,
            )
        };
        check(code, "create filter").map(|_| context)
    }

    fn parse(&mut self, chain: &str) -> Result<()> {
        // libav 5 answers EINVAL, as to a wrong option.
        if !missing_filters(chain).is_empty() {
            return Err(Error::new(ErrorKind::NoFilter, "find filter"));
        }
        let chain = CString::new(chain).map_err(|_| Error::new(ErrorKind::Other, "describe graph"))?;
        // SAFETY: the open ends are ours and freed here, whatever libav made of them; names are copies that it frees.
        unsafe {
            // Named from the point of view of the chain: its input is fed by our source.
            let mut inputs = open_end(c"out", self.sink)?;
            let mut outputs = open_end(c"in", self.source)?;
            let code = ffi::avfilter_graph_parse_ptr(
                self.filters,
                chain.as_ptr(),
                &raw mut inputs,
                &raw mut outputs,
                ptr::null_mut(),
            );
            ffi::avfilter_inout_free(&raw mut inputs);
            ffi::avfilter_inout_free(&raw mut outputs);
            check(code, "parse graph").map(|_| ())
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, with its filters, which nobody else can hold.
        unsafe { ffi::avfilter_graph_free(&raw mut self.filters) }
    }
}

/// The filters of a chain that this build of libav lacks. Chains are ours: commas stand between filters only.
fn missing_filters(chain: &str) -> Vec<&str> {
    let names = chain.split(',').filter_map(|step| step.split('=').next()).filter(|name| !name.is_empty());
    names.filter(|name| !has_filter(name)).collect()
}

/// # Safety
///
/// `filter` is alive for as long as the result is used.
unsafe fn open_end(name: &std::ffi::CStr, filter: *mut ffi::AVFilterContext) -> Result<*mut ffi::AVFilterInOut> {
    // SAFETY: allocates and is checked; the name is duplicated for libav to free.
    unsafe {
        let end = ffi::avfilter_inout_alloc();
        if end.is_null() {
            return Err(Error::memory("allocate graph"));
        }
        (*end).name = ffi::av_strdup(name.as_ptr());
        (*end).filter_ctx = filter;
        (*end).pad_idx = 0;
        (*end).next = ptr::null_mut();
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_this_build_of_libav_lacks_is_told_from_one_that_is_used_wrongly() {
        let shape = PictureShape {
            width: 64,
            height: 64,
            format: "yuv420p".into(),
            aspect: Rational(1, 1),
            color: Color { range: 0, primaries: 2, transfer: 2, matrix: 2 },
            time_base: Rational(1, 25),
            frame_rate: Rational(25, 1),
        };
        let kind = |chain: &str| Graph::pictures(&shape, chain, 1).map(drop).map_err(|error| error.kind);
        assert_eq!(kind("scale=32:32:flags=bicubic,format=yuv420p"), Ok(()));
        assert_eq!(kind("null,scale_of_tomorrow=32:32"), Err(ErrorKind::NoFilter));
        assert!(kind("scale=32:32:option_of_tomorrow=1").is_err_and(|kind| kind != ErrorKind::NoFilter));
        assert_eq!(missing_filters("scale=1:2,wobble,setsar=1,shake=a=b"), ["wobble", "shake"]);
    }
}
