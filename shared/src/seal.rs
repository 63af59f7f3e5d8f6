//! Secrets of callers at rest: sealed with a key that only the deployment has (XChaCha20-Poly1305).

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};

/// Random bytes that each sealing needs: so many that two never meet.
pub const NONCE_BYTES: usize = 24;

/// Seals a text under the deployment's secret. It opens for the same `context` only: whoever can swap rows cannot swap what
/// they hold.
pub fn seal(secret: &str, nonce: [u8; NONCE_BYTES], context: &str, text: &str) -> String {
    let payload = Payload { msg: text.as_bytes(), aad: context.as_bytes() };
    let Ok(sealed) = cipher(secret).encrypt(&XNonce::from(nonce), payload) else {
        unreachable!("only texts of gigabytes cannot be sealed")
    };
    STANDARD.encode([&nonce[..], &sealed].concat())
}

/// Opens what [`seal`] made. None for another secret or context, or when a bit is wrong.
pub fn open(secret: &str, context: &str, sealed: &str) -> Option<String> {
    let bytes = STANDARD.decode(sealed).ok()?;
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: context.as_bytes() };
    let opened = cipher(secret).decrypt(&XNonce::from(*nonce), payload).ok()?;
    String::from_utf8(opened).ok()
}

/// The secret has 32 random characters or more, so one digest makes a key of it.
fn cipher(secret: &str) -> XChaCha20Poly1305 {
    let key: [u8; 32] = Sha256::digest(format!("xora-seal-1\n{secret}")).into();
    XChaCha20Poly1305::new(&key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_secret_and_context_only() {
        let sealed = seal("secret", [7; NONCE_BYTES], "row 1", "the key");
        assert_eq!(open("secret", "row 1", &sealed).as_deref(), Some("the key"));
        assert_eq!(open("secret", "row 2", &sealed), None);
        assert_eq!(open("another", "row 1", &sealed), None);
        assert!(!String::from_utf8_lossy(&STANDARD.decode(&sealed).expect("base64")).contains("key"));
    }

    #[test]
    fn a_changed_bit_opens_nothing() {
        let sealed = STANDARD.decode(seal("secret", [7; NONCE_BYTES], "", "text")).expect("base64");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open("secret", "", &STANDARD.encode(changed)), None, "byte {at}");
        }
        assert_eq!(open("secret", "", "short"), None);
    }
}
