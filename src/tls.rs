//! Whom connections to Redis and Postgres trust: the certificates of a file, or those of the system.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// Why there is nobody to trust; reads on after the name of a setting.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is no list of certificates.
    #[error("cannot be read ({0}); it has to be a PEM file with certificates")]
    File(pem::Error),
    /// A certificate in the file is none of an authority.
    #[error("has a certificate that cannot be trusted ({0})")]
    Certificate(rustls::Error),
    /// There is no certificate in the file.
    #[error("has no certificate in it; it has to be a PEM file with certificates")]
    Empty,
    /// The system trusts nobody.
    #[error(
        "is not set, and this system has no certificates (Debian's are in the package ca-certificates)"
    )]
    NoSystem,
}

/// How to encrypt, decrypt and sign; named here, since a library that came with another one would make it unclear.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The authorities in `file`, and nobody else; without a file those that the system trusts.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return match roots.is_empty() {
            true => Err(TrustError::NoSystem),
            false => Ok(roots),
        };
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(TrustError::File)? {
        let certificate = certificate.map_err(TrustError::File)?;
        roots.add(certificate).map_err(TrustError::Certificate)?;
    }
    match roots.is_empty() {
        true => Err(TrustError::Empty),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_have_certificates() {
        let file = tempfile::NamedTempFile::new().expect("a writable directory");
        let trusted = |text: &str| {
            std::fs::write(file.path(), text).expect("the file is ours");
            roots(Some(file.path()))
                .map(|roots| roots.len())
                .map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("", "has no certificate in it"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "cannot be read"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "cannot be trusted",
            ),
        ] {
            let error = trusted(text).expect_err(text);
            assert!(error.contains(expected), "{error}");
        }
        let authority = rcgen::generate_simple_self_signed(["redis.example".to_owned()]);
        let authority = authority.expect("a certificate").cert.pem();
        assert_eq!(trusted(&authority), Ok(1));
        assert_eq!(trusted(&authority.repeat(2)), Ok(2));
        assert!(roots(Some(Path::new("/nowhere"))).is_err());
    }
}
