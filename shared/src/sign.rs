//! Signed, expiring URLs of files, and comparison of secrets in constant time.
//!
//! `signature = base64url(HMAC-SHA256(key, "xora-file-1\n" class "\n" path "\n" extra "\n" expires))`. The class keeps a read
//! URL from writing; the path keeps it to one object; `extra` holds whatever else the URL carries.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::time::UnixMs;

/// What a signed URL lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `GET` and `HEAD`.
    Read,
    /// One `PUT` of one part.
    WritePart,
}

/// Everything that a signature covers.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// What it permits.
    pub access: Access,
    /// The path of the URL, as the server sees it.
    pub path: &'a str,
    /// Query parameters that belong to the grant, in the form in which they stand in the URL.
    pub extra: &'a str,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// Why a signed URL does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// Its time is over.
    #[error("this link has expired; read the job or the upload again for a fresh one")]
    Expired,
    /// Not signed by us, or for something else.
    #[error("this link's signature is not valid; read the job or the upload again for a fresh one")]
    BadSignature,
}

impl Grant<'_> {
    /// The signature, in unpadded base64url (43 characters).
    pub fn sign(&self, key: &[u8]) -> String {
        base64url(&self.mac(key))
    }

    /// Checks a signature that came with this grant.
    pub fn verify(&self, key: &[u8], signature: &str, now: UnixMs) -> Result<(), NotGranted> {
        if !same_secret(&self.sign(key), signature) {
            return Err(NotGranted::BadSignature);
        }
        if now.0 >= self.expires.saturating_mul(1000) { Err(NotGranted::Expired) } else { Ok(()) }
    }

    fn mac(&self, key: &[u8]) -> [u8; 32] {
        let access = match self.access {
            Access::Read => "read",
            Access::WritePart => "write-part",
        };
        let text = format!("xora-file-1\n{access}\n{}\n{}\n{}", self.path, self.extra, self.expires);
        hmac_sha256(key, text.as_bytes())
    }
}

/// HMAC-SHA256 (RFC 2104).
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes a key of any length; the constructor's error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes a key of any length") };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// SHA-256 as lower-case hex: what is stored of a key instead of the key.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal digits, two for each byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|nibble| char::from(DIGITS[usize::from(nibble)])).collect()
}

/// Compares two secrets without telling by its timing where they differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// Base64 with the URL alphabet and without padding (RFC 4648 section 5).
fn base64url(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Grant<'_> =
        Grant { access: Access::Read, path: "/files/outputs/a/result.mp4", extra: "", expires: 2_000 };

    #[test]
    fn a_grant_opens_what_it_was_signed_for_until_it_ends() {
        let signature = GRANT.sign(b"key");
        assert_eq!(GRANT.verify(b"key", &signature, UnixMs(1_999_999)), Ok(()));
        assert_eq!(GRANT.verify(b"key", &signature, UnixMs(2_000_000)), Err(NotGranted::Expired));
    }

    #[test]
    fn a_grant_opens_nothing_else() {
        let signature = GRANT.sign(b"key");
        let others = [
            Grant { access: Access::WritePart, ..GRANT },
            Grant { path: "/files/outputs/b/result.mp4", ..GRANT },
            Grant { extra: "part=1", ..GRANT },
            Grant { expires: 3_000, ..GRANT },
        ];
        for other in others {
            assert_eq!(other.verify(b"key", &signature, UnixMs(0)), Err(NotGranted::BadSignature), "{other:?}");
        }
        assert_eq!(GRANT.verify(b"other", &signature, UnixMs(0)), Err(NotGranted::BadSignature));
        assert_eq!(GRANT.verify(b"key", "", UnixMs(0)), Err(NotGranted::BadSignature));
    }

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_agrees_with_the_rfc() {
        let mac = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
