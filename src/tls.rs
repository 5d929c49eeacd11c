//! The certificates that connections to Redis and Postgres trust: those of a file, or the system's.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

/// Why no certificate can be trusted. The text continues the name of a setting.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is not a list of PEM certificates.
    #[error("cannot be read ({0}); it has to be a PEM file with certificates")]
    File(pem::Error),
    /// The file contains a certificate that is not an authority's.
    #[error("has a certificate that cannot be trusted ({0})")]
    Certificate(rustls::Error),
    /// The file contains no certificate.
    #[error("has no certificate in it; it has to be a PEM file with certificates")]
    Empty,
    /// The system has no trusted certificates.
    #[error(
        "is not set, and this system has no certificates (Debian's are in the package ca-certificates)"
    )]
    NoSystem,
}

/// The cryptography provider, named explicitly: a library that brings another one would make the default ambiguous.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The authorities in `file` alone; without a file those of the system.
pub(crate) fn roots(file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return if roots.is_empty() {
            Err(TrustError::NoSystem)
        } else {
            Ok(roots)
        };
    };
    for certificate in CertificateDer::pem_file_iter(file).map_err(TrustError::File)? {
        let certificate = certificate.map_err(TrustError::File)?;
        roots.add(certificate).map_err(TrustError::Certificate)?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty);
    }
    Ok(roots)
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
