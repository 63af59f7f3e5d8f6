//! What is committed is what is generated.

use std::fs;

#[test]
fn the_committed_description_is_that_of_the_types() {
    for (path, text) in xora_docs::files() {
        let committed = fs::read_to_string(xora_docs::root().join(&path)).unwrap_or_default();
        assert!(committed == text, "{} is not what the types say; run `make docs`", path.display());
    }
}
