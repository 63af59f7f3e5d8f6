//! What libav may open. Everything else is refused, hostile playlists and rare decoders alike.

/// Demuxers by their exact names in libav. No playlists or scripts (`hls`, `concat`, `dash`), which open other files.
pub(crate) const DEMUXERS: &str = concat!(
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpegts,mpeg,mpegvideo,avi,asf,flv,ogg,mxf,",
    "wav,w64,mp3,aac,ac3,eac3,flac,aiff,au,amr,caf,dts,truehd,wv,tta,ape,mpc,mpc8,",
    "h264,hevc,m4v,ivf,dv,gif,apng,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe",
);

/// Decoders by name. Left out: what no camera, phone, editor or recorder writes or once wrote into these containers, and
/// `magicyuv` with its history.
pub(crate) const DECODERS: &str = concat!(
    "h264,hevc,vp8,vp9,libdav1d,av1,mpeg1video,mpeg2video,mpegvideo,mpeg4,h263,h263i,h263p,flv,",
    "msmpeg4v1,msmpeg4,msmpeg4v2,wmv1,wmv2,wmv3,vc1,prores,dnxhd,mjpeg,dvvideo,theora,",
    "rawvideo,huffyuv,ffvhuff,ffv1,utvideo,lagarith,v210,cfhd,jpeg2000,mjpegb,svq1,svq3,vp3,vp6,vp6f,vp6a,dirac,",
    "cinepak,indeo3,indeo4,indeo5,msvideo1,msrle,qtrle,rpza,smc,8bps,",
    "fraps,zmbv,camtasia,camstudio,mss1,mss2,flashsv,flashsv2,",
    "png,apng,gif,bmp,tiff,webp,",
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,mp1,mp1float,ac3,eac3,opus,libopus,vorbis,flac,alac,dca,truehd,mlp,",
    "wmav1,wmav2,wmapro,wmalossless,wmavoice,amrnb,amrwb,gsm,gsm_ms,speex,libspeex,nellymoser,qdm2,qdmc,mace3,mace6,",
    "ape,wavpack,tta,mpc7,mpc8,",
    "pcm_s8,pcm_u8,pcm_s16le,pcm_s16be,pcm_u16le,pcm_u16be,pcm_s24le,pcm_s24be,pcm_u24le,pcm_u24be,",
    "pcm_s32le,pcm_s32be,pcm_u32le,pcm_u32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be,pcm_alaw,pcm_mulaw,",
    "pcm_s16le_planar,pcm_s16be_planar,pcm_s24le_planar,pcm_s32le_planar,pcm_dvd,pcm_bluray,",
    "adpcm_ima_wav,adpcm_ima_qt,adpcm_ms,adpcm_swf,adpcm_yamaha,adpcm_g722,adpcm_g726,",
    "s302m",
);

/// A protocol that does not exist: with custom I/O none is ever needed.
pub(crate) const PROTOCOLS: &str = "none";
