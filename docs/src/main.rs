//! Writes the files that describe the API.

use std::{fs, io};

fn main() -> io::Result<()> {
    for (path, text) in xora_docs::files() {
        let path = xora_docs::root().join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)?;
    }
    Ok(())
}
