//! Signatures by Standard Webhooks 1.0.0, symmetric scheme (`v1`).
//!
//! Owns the format of secrets and the signed content: `{id}.{timestamp}.{body}` under HMAC-SHA256.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ring::hmac;

use crate::secret::Secret;

/// The prefix of secrets.
const PREFIX: &str = "whsec_";

/// Base64 of secrets, with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signing secret: `whsec_` and the base64 of 24 to 64 bytes. Prints as `[REDACTED]`.
#[derive(Clone)]
pub struct SigningSecret {
    key: Arc<hmac::Key>,
    text: Secret,
}

/// Why a text is not a signing secret. The text itself is never shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Another format.
    #[error(
        "the secret does not begin with `whsec_`; expected whsec_ and the base64 of 24 to 64 random bytes"
    )]
    Prefix,
    /// Not base64.
    #[error("what follows `whsec_` is not base64; expected whsec_ and the base64 of 24 to 64 random bytes")]
    Base64,
    /// Too short or too long.
    #[error(
        "the secret decodes to {0} bytes; expected 24 to 64 (make one with: echo whsec_$(openssl rand -base64 32))"
    )]
    Length(usize),
}

impl SigningSecret {
    /// Parses a secret.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = LENIENT.decode(encoded).map_err(|_| SecretError::Base64)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Ok(Self { key, text: Secret::new(text.trim()) })
    }

    /// The secret as text.
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// One entry of a `webhook-signature` header, such as `v1,K5oZ…`. `timestamp` is the time of the attempt, in Unix
    /// seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// Whether any entry of a `webhook-signature` header was made with `secret`. Runs in constant time.
pub fn verify(secret: &SigningSecret, id: &str, timestamp: i64, body: &[u8], header: &str) -> bool {
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    header
        .split(' ')
        .filter_map(|entry| STANDARD.decode(entry.strip_prefix("v1,")?).ok())
        .any(|tag| hmac::verify(&secret.key, &signed, &tag).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of Standard Webhooks' reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn agrees_with_the_official_test_vector() {
        let secret = SigningSecret::parse(SECRET).unwrap();
        assert_eq!(secret.sign(ID, TIMESTAMP, BODY), SIGNATURE);
        assert!(verify(&secret, ID, TIMESTAMP, BODY, SIGNATURE));
        assert!(verify(&secret, ID, TIMESTAMP, BODY, &format!("v1a,xyz v1,AAAA {SIGNATURE}")));
    }

    #[test]
    fn every_part_is_signed() {
        let secret = SigningSecret::parse(SECRET).unwrap();
        let other = SigningSecret::parse(&format!("whsec_{}", STANDARD.encode([7; 24]))).unwrap();
        assert!(!verify(&other, ID, TIMESTAMP, BODY, SIGNATURE));
        assert!(!verify(&secret, "msg_other", TIMESTAMP, BODY, SIGNATURE));
        assert!(!verify(&secret, ID, TIMESTAMP + 1, BODY, SIGNATURE));
        assert!(!verify(&secret, ID, TIMESTAMP, b"{}", SIGNATURE));
        assert!(!verify(&secret, ID, TIMESTAMP, BODY, ""));
    }

    #[test]
    fn refuses_secrets_that_are_none() {
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![1; bytes]));
        let error = |text: &str| SigningSecret::parse(text).err();
        assert_eq!(error("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Some(SecretError::Prefix));
        assert_eq!(error(""), Some(SecretError::Prefix));
        assert_eq!(error("whsec_not base64!"), Some(SecretError::Base64));
        assert_eq!(error("whsec_"), Some(SecretError::Length(0)));
        assert_eq!(error(&of(23)), Some(SecretError::Length(23)));
        assert_eq!(error(&of(24)), None);
        assert_eq!(error(&of(64)), None);
        assert_eq!(error(&of(65)), Some(SecretError::Length(65)));
        assert_eq!(error(of(25).trim_end_matches('=')), None, "padding is optional");
        assert_eq!(format!("{:?}", SigningSecret::parse(SECRET).unwrap()), "[REDACTED]");
    }
}
