//! Signatures of webhooks, as Standard Webhooks 1.0 has them, so that its libraries verify ours.
//!
//! `webhook-id` is the same on every attempt, `webhook-timestamp` is the attempt's own in Unix seconds, and
//! `webhook-signature` lists `v1,base64(HMAC-SHA256(secret, id.timestamp.body))` for every secret in force.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{sign::hmac_sha256, time::UnixMs};

/// How long the secret before a rotation signs beside the new one, in milliseconds.
pub const ROTATION_MS: i64 = 24 * 3600 * 1000;

/// Random bytes of a secret; the specification wants 24 to 64.
pub const SECRET_BYTES: usize = 32;

/// The secrets that sign: the current one, and for a while the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secrets {
    /// `whsec_` and base64.
    pub current: String,
    /// The one before.
    pub previous: Option<Previous>,
}

/// A secret that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// `whsec_` and base64.
    pub secret: String,
    /// Until when it signs, in ms since 1970.
    pub until_ms: i64,
}

impl Secrets {
    /// The first secret of an account.
    pub fn first(random: [u8; SECRET_BYTES]) -> Self {
        Self { current: format!("whsec_{}", STANDARD.encode(random)), previous: None }
    }

    /// A new secret; the one before signs beside it for [`ROTATION_MS`].
    #[must_use]
    pub fn rotate(self, random: [u8; SECRET_BYTES], now: UnixMs) -> Self {
        let previous = Previous { secret: self.current, until_ms: now.plus(ROTATION_MS).0 };
        Self { previous: Some(previous), ..Self::first(random) }
    }

    /// Without a previous secret whose time is over.
    #[must_use]
    pub fn at(self, now: UnixMs) -> Self {
        Self { previous: self.previous.filter(|previous| previous.until_ms > now.0), ..self }
    }

    /// The value of `webhook-signature`: one signature for each secret in force, the current one first.
    pub fn sign(&self, id: &str, now: UnixMs, body: &str) -> String {
        let previous = self.previous.as_ref().filter(|previous| previous.until_ms > now.0);
        let secrets = [Some(&self.current), previous.map(|previous| &previous.secret)];
        let signatures: Vec<_> =
            secrets.into_iter().flatten().map(|secret| sign(secret, id, now.0.div_euclid(1000), body)).collect();
        signatures.join(" ")
    }
}

/// One signature, with its version.
fn sign(secret: &str, id: &str, seconds: i64, body: &str) -> String {
    let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
    // Secrets are ours and always decode; one that did not would still sign, only not verifiably.
    let key = STANDARD.decode(encoded).unwrap_or_else(|_| encoded.as_bytes().to_vec());
    let mac = hmac_sha256(&key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the specification's own libraries (`standard-webhooks/standard-webhooks`, `libraries/`).
    #[test]
    fn signatures_agree_with_the_published_vectors() {
        assert_eq!(
            sign(
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        assert_eq!(
            sign(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn after_a_rotation_both_secrets_sign_for_a_day_and_then_only_the_new_one() {
        let now = UnixMs(1_700_000_000_000);
        let first = Secrets::first([1; SECRET_BYTES]);
        let rotated = first.clone().rotate([2; SECRET_BYTES], now);
        let both = rotated.sign("id", now, "{}");
        assert_eq!(both.split(' ').count(), 2);
        assert!(both.ends_with(&first.sign("id", now, "{}")));
        let later = now.plus(ROTATION_MS);
        assert_eq!(rotated.sign("id", later, "{}").split(' ').count(), 1);
        assert_eq!(rotated.at(later).previous, None);
    }
}
