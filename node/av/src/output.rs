//! Writing a container.

use std::{ffi::CString, ptr};

use ffmpeg_next::ffi;

use crate::{
    encoder::Encoder,
    error::{Error, ErrorKind, Result, check},
    input::Input,
    io::{WriteAt, Writer},
    options::Options,
    packet::Packet,
    stream::side_data,
    tags::{self, Chapter},
    time::Rational,
};

/// A container being written. Writes only through the [`WriteAt`] it was given.
pub struct Output {
    context: *mut ffi::AVFormatContext,
    /// After `context` in use, so it is freed later: see `drop`.
    io: Writer,
}

impl Output {
    /// Begins a container of libav's name `format`.
    pub fn create(format: &str, sink: Box<dyn WriteAt>) -> Result<Self> {
        let io = Writer::writing(sink)?;
        let name = CString::new(format).map_err(|_| Error::new(ErrorKind::NoEncoder, "find muxer"))?;
        // SAFETY: the name ends with zero; the answer is a static table entry or null.
        if unsafe { ffi::av_guess_format(name.as_ptr(), ptr::null(), ptr::null()).is_null() } {
            return Err(Error::new(ErrorKind::NoEncoder, "find muxer"));
        }
        let mut context = ptr::null_mut();
        // SAFETY: the name ends with zero; the context is ours, and its I/O outlives it.
        unsafe {
            let code = ffi::avformat_alloc_output_context2(&raw mut context, ptr::null(), name.as_ptr(), ptr::null());
            check(code, "allocate output")?;
            (*context).pb = io.context();
            (*context).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
            // Else every packet would be a call of the sink.
            (*context).flags &= !ffi::AVFMT_FLAG_FLUSH_PACKETS;
        }
        Ok(Self { context, io })
    }

    /// Whether it wants the codecs' headers apart from their packets.
    pub fn wants_global_header(&self) -> bool {
        // SAFETY: valid while `self` is; an output has a muxer.
        unsafe { (*(*self.context).oformat).flags & ffi::AVFMT_GLOBALHEADER != 0 }
    }

    /// Adds a stream and returns its index. It must be described before [`Self::begin`].
    pub fn add(&mut self) -> Result<usize> {
        // SAFETY: the context is valid and its header not yet written; the stream belongs to it.
        unsafe {
            let stream = ffi::avformat_new_stream(self.context, ptr::null());
            if stream.is_null() {
                return Err(Error::memory("add stream"));
            }
            Ok(usize::try_from((*stream).index).unwrap_or(0))
        }
    }

    /// Says that a stream holds what `encoder` makes. `tag` is the four-character code to use where the usual one will
    /// not do.
    pub fn describe(
        &mut self,
        stream: usize,
        encoder: &Encoder,
        frame_rate: Rational,
        tag: Option<[u8; 4]>,
    ) -> Result<()> {
        let stream = self.stream(stream).ok_or(Error::new(ErrorKind::Other, "describe stream"))?;
        // SAFETY: the stream is of this context, the parameters belong to the stream; the encoder is open.
        unsafe {
            check(ffi::avcodec_parameters_from_context((*stream).codecpar, encoder.as_ptr()), "describe stream")?;
            (*(*stream).codecpar).codec_tag = tag.map_or(0, u32::from_le_bytes);
            (*stream).time_base = encoder.time_base().into();
            (*stream).sample_aspect_ratio = (*(*stream).codecpar).sample_aspect_ratio;
            if frame_rate.0 > 0 {
                (*stream).avg_frame_rate = frame_rate.into();
            }
        }
        Ok(())
    }

    /// Says that a stream holds the very packets of a stream of `input`: its codec, headers, colours, pixel aspect and
    /// display matrix are taken over.
    pub fn describe_copy(&mut self, stream: usize, input: &Input, from: usize, tag: Option<[u8; 4]>) -> Result<()> {
        let missing = Error::new(ErrorKind::Other, "describe stream");
        let to = self.stream(stream).ok_or(missing)?;
        let from = input.stream(from).ok_or(missing)?;
        // SAFETY: both streams belong to live contexts, and libav always allocates their parameters; nothing of `input`
        // is kept.
        unsafe {
            check(ffi::avcodec_parameters_copy((*to).codecpar, (*from).codecpar), "describe stream")?;
            (*(*to).codecpar).codec_tag = tag.map_or(0, u32::from_le_bytes);
            (*to).time_base = crate::time::fine((*from).time_base.into()).0.into();
            (*to).avg_frame_rate = (*from).avg_frame_rate;
            let own = (*from).sample_aspect_ratio;
            if own.num > 0 {
                // The container's word counts, and the muxer takes no other beside it.
                (*(*to).codecpar).sample_aspect_ratio = own;
            }
            (*to).sample_aspect_ratio = (*(*to).codecpar).sample_aspect_ratio;
            copy_display_matrix(to, from)
        }
    }

    /// Sets a tag of the file or of one of its streams, by libav's name of it. Formats leave out what they cannot say.
    pub fn set_tag(&mut self, stream: Option<usize>, name: &str, value: &str) -> Result<()> {
        // SAFETY: the dictionaries belong to the context and its streams, which are valid while `self` is.
        unsafe {
            let tags = match stream {
                Some(stream) => {
                    &raw mut (*self.stream(stream).ok_or(Error::new(ErrorKind::Other, "set tag"))?).metadata
                }
                None => &raw mut (*self.context).metadata,
            };
            tags::set(tags, name, value)
        }
    }

    /// Adds a chapter. Formats without chapters leave them out.
    pub fn add_chapter(&mut self, chapter: &Chapter) -> Result<()> {
        // SAFETY: the context is valid and its header not yet written.
        unsafe { chapter.append(self.context) }
    }

    /// Says that a stream, which has been described, is a picture that belongs to the file.
    pub fn attach(&mut self, stream: usize) {
        if let Some(stream) = self.stream(stream) {
            // SAFETY: the stream is of this context.
            unsafe { (*stream).disposition |= ffi::AV_DISPOSITION_ATTACHED_PIC }
        }
    }

    /// Replaces the codec's header of a stream that has been described.
    pub fn set_header(&mut self, stream: usize, header: &[u8]) -> Result<()> {
        let stream = self.stream(stream).ok_or(Error::new(ErrorKind::Other, "describe stream"))?;
        let size = i32::try_from(header.len()).map_err(|_| Error::memory("describe stream"))?;
        // SAFETY: the stream is of this context and its parameters own their header, which is freed and replaced by a
        // copy with the zeros behind it that libav's readers want.
        unsafe {
            let parameters = (*stream).codecpar;
            ffi::av_freep((&raw mut (*parameters).extradata).cast());
            (*parameters).extradata_size = 0;
            let copy = ffi::av_mallocz(header.len() + ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize).cast::<u8>();
            if copy.is_null() {
                return Err(Error::memory("describe stream"));
            }
            ptr::copy_nonoverlapping(header.as_ptr(), copy, header.len());
            (*parameters).extradata = copy;
            (*parameters).extradata_size = size;
        }
        Ok(())
    }

    /// Writes what comes before the first packet. The streams' time bases may change by it.
    pub fn begin(&mut self, options: &[(&str, String)]) -> Result<()> {
        let mut options = Options::new(options.iter().map(|(key, value)| (*key, value.as_str())))?;
        // SAFETY: the context is complete; libav takes what it knows out of the dictionary.
        let code = unsafe { ffi::avformat_write_header(self.context, options.as_mut()) };
        self.check(code, "write header")?;
        options.all_taken("write header")
    }

    /// Unit of the times of a stream's packets, in seconds; final after [`Self::begin`].
    pub fn time_base(&self, stream: usize) -> Rational {
        // SAFETY: the stream is of this context.
        self.stream(stream).map_or(Rational(0, 1), |stream| unsafe { (*stream).time_base }.into())
    }

    /// Writes a packet in its turn among the streams. The packet is empty afterwards.
    pub fn write(&mut self, packet: &mut Packet) -> Result<()> {
        // SAFETY: the header is written; libav takes over the packet's reference.
        let code = unsafe { ffi::av_interleaved_write_frame(self.context, packet.as_mut_ptr()) };
        self.check(code, "write packet")
    }

    /// Writes the packets that wait for their turn among the streams, and hands all bytes so far to the sink.
    pub fn flush(&mut self) -> Result<()> {
        // SAFETY: the header is written; no packet means all that wait.
        let code = unsafe {
            let code = ffi::av_interleaved_write_frame(self.context, ptr::null_mut());
            ffi::avio_flush((*self.context).pb);
            code
        };
        self.check(code, "write packet")
    }

    /// Changes an option of the muxer that it reads again later, by libav's name of it.
    pub fn set_option(&mut self, name: &str, value: i64) -> Result<()> {
        let name = CString::new(name).map_err(|_| Error::new(ErrorKind::Option, "set option"))?;
        // SAFETY: a muxer with a class of its own has private data that begins with it, which `av_opt_set_int` needs.
        unsafe {
            if (*(*self.context).oformat).priv_class.is_null() {
                return Err(Error::new(ErrorKind::Option, "set option"));
            }
            check(ffi::av_opt_set_int((*self.context).priv_data, name.as_ptr(), value, 0), "set option").map(|_| ())
        }
    }

    /// Writes what comes after the last packet, and hands all bytes to the sink.
    pub fn finish(&mut self) -> Result<()> {
        // SAFETY: the header is written; the trailer is, once.
        let code = unsafe {
            let code = ffi::av_write_trailer(self.context);
            ffi::avio_flush((*self.context).pb);
            code
        };
        self.check(code, "write trailer")
    }

    fn stream(&self, stream: usize) -> Option<*mut ffi::AVStream> {
        // SAFETY: valid while `self` is; the index is checked against the count.
        unsafe {
            let count = (*self.context).nb_streams as usize;
            (stream < count).then(|| *(*self.context).streams.add(stream))
        }
    }

    fn check(&self, code: i32, doing: &'static str) -> Result<()> {
        if self.io.failed() {
            return Err(Error::new(ErrorKind::Sink, doing));
        }
        check(code, doing).map(|_| ())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; the custom I/O is not touched, and the field `io` is dropped after this body.
        unsafe { ffi::avformat_free_context(self.context) }
    }
}

/// # Safety
///
/// Both streams are valid.
unsafe fn copy_display_matrix(to: *mut ffi::AVStream, from: *const ffi::AVStream) -> Result<()> {
    let kind = ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX;
    // SAFETY: promised by the caller; the copy is as long as what is copied.
    unsafe {
        let Some(matrix) = side_data(from, kind) else { return Ok(()) };
        #[cfg(ffmpeg_7_0)]
        let copy = {
            let parameters = (*to).codecpar;
            let (all, count) = (&raw mut (*parameters).coded_side_data, &raw mut (*parameters).nb_coded_side_data);
            let new = ffi::av_packet_side_data_new(all, count, kind, matrix.len(), 0);
            if new.is_null() { ptr::null_mut() } else { (*new).data }
        };
        #[cfg(not(ffmpeg_7_0))]
        let copy = ffi::av_stream_new_side_data(to, kind, matrix.len());
        if copy.is_null() {
            return Err(Error::memory("describe stream"));
        }
        ptr::copy_nonoverlapping(matrix.as_ptr(), copy, matrix.len());
    }
    Ok(())
}
