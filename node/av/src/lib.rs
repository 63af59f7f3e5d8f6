//! libav, safe to call.
