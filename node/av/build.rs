//! Passes on which FFmpeg the headers belong to, as `ffmpeg-sys-next` found them: `cfg(ffmpeg_7_0)` is 7.0 or later.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for version in ["6_0", "7_0"] {
        println!("cargo:rustc-check-cfg=cfg(ffmpeg_{version})");
        if std::env::var(format!("DEP_FFMPEG_FFMPEG_{version}")).is_ok_and(|found| found == "true") {
            println!("cargo:rustc-cfg=ffmpeg_{version}");
        }
    }
}
