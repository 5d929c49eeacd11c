//! The certificates that connections to Redis and Postgres trust: those of a file, or the system's.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

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

/// Verifies certificates by `roots`.
pub(crate) fn verifier(
    roots: RootCertStore,
) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()
}

/// TLS of a client without a certificate of its own.
pub(crate) fn client_config(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Whether a certificate was refused because no trusted authority has signed it.
pub(crate) fn is_untrusted(refused: &CertificateError) -> bool {
    matches!(
        refused,
        CertificateError::UnknownIssuer | CertificateError::BadSignature
    )
}

/// The reason for which one client refused a certificate last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastRefusal(Arc<Mutex<Option<CertificateError>>>);

impl LastRefusal {
    pub(crate) fn take(&self) -> Option<CertificateError> {
        self.0.lock().take()
    }
}

/// Verifies as `verifier` does, and notes in `refusal` why a certificate was refused, for clients that report errors as text.
pub(crate) fn recording(
    verifier: Arc<WebPkiServerVerifier>,
    refusal: LastRefusal,
) -> Arc<dyn ServerCertVerifier> {
    Arc::new(RecordingVerifier { verifier, refusal })
}

#[derive(Debug)]
struct RecordingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    refusal: LastRefusal,
}

impl RecordingVerifier {
    fn record<T>(&self, verified: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::InvalidCertificate(refused)) = &verified {
            *self.refusal.0.lock() = Some(refused.clone());
        }
        verified
    }
}

impl ServerCertVerifier for RecordingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.record(self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.record(
            self.verifier
                .verify_tls12_signature(message, certificate, signature),
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.record(
            self.verifier
                .verify_tls13_signature(message, certificate, signature),
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
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
