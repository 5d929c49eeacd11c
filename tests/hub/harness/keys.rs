//! Keys to sign tokens with, and tokens put together by hand: whole, and as no library would make them.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, EncodingKey, crypto};

// Keys made for these tests and used nowhere else.

/// On P-256, for ES256.
pub const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFvTIDNcKGp8Qp77q
M+gd6XF+iPiJopWwyjLr1qFWjGGhRANCAARkGCSMLOeu+KKjNldLi/pvyRSn9qtT
M/JIukRb4d9s+5iRi14S3coShWrHeBG6m++CbDCuy2hPEVte4CTTYRre
-----END PRIVATE KEY-----
";
pub const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZBgkjCznrviiozZXS4v6b8kUp/ar
UzPySLpEW+HfbPuYkYteEt3KEoVqx3gRupvvgmwwrstoTxFbXuAk02Ea3g==
-----END PUBLIC KEY-----
";
/// Ed25519, for EdDSA.
pub const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIORd1J0YEMIjXjrBj7gtGq6ZidUUFQVXDnFQzvJOEF21
-----END PRIVATE KEY-----
";
pub const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAvuyZhLiFUw7aBNcl1j7NOTdWmXLi2wdAQW3DAEYvgSw=
-----END PUBLIC KEY-----
";
/// Somebody else's, Ed25519 too, and its public part as a JWK has it.
pub const FOREIGN_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEILNbqVXjw9DbKLIdB/NQPx2YWuzR9/F+TFBEZpIMU2om
-----END PRIVATE KEY-----
";

pub const FOREIGN_X: &str = "BXW66qJGeAcebI9zcPwVL13z9qoFEWv8iPHZ4tknPTw";

/// A key that signs tokens, and its algorithm.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// With a shared secret, HS256.
    pub fn secret(secret: impl AsRef<[u8]>) -> Self {
        Self::hmac(Algorithm::HS256, secret)
    }

    /// With a shared secret.
    pub fn hmac(algorithm: Algorithm, secret: impl AsRef<[u8]>) -> Self {
        let key = EncodingKey::from_secret(secret.as_ref());
        Self { algorithm, key }
    }

    /// With a private key on P-256.
    pub fn ec(pem: &str) -> Self {
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).expect("a private key");
        let algorithm = Algorithm::ES256;
        Self { algorithm, key }
    }

    /// With a private Ed25519 key.
    pub fn ed(pem: &str) -> Self {
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).expect("a private key");
        let algorithm = Algorithm::EdDSA;
        Self { algorithm, key }
    }

    /// The algorithm's name in the header.
    pub fn alg(&self) -> String {
        format!("{:?}", self.algorithm)
    }

    /// Signs a header and claims as they stand, whatever they say.
    pub fn sign(&self, header: &str, claims: impl AsRef<[u8]>) -> String {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm);
        format!("{message}.{}", signature.expect("the key fits"))
    }

    /// Signs claims under the usual header.
    pub fn token(&self, claims: impl ToString) -> String {
        let header = format!(r#"{{"typ":"JWT","alg":"{}"}}"#, self.alg());
        self.sign(&header, claims.to_string())
    }
}

/// Encodes as the parts of a token are.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.as_ref().chunks(3).flat_map(|chunk| {
        let byte = |at: usize| usize::from(*chunk.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        (0..=chunk.len()).map(move |at| char::from(DIGITS[bits >> (18 - 6 * at) & 63]))
    });
    digits.collect()
}

/// Puts a text into a file in `folder`; nodes read keys from files.
pub fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the folder is there");
    path
}
