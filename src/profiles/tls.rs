//! TLS settings of connections: the URL's `sslmode`, with the meaning it has for `psql`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ProfilesError;
use crate::tls;

/// The TLS settings of a URL.
pub(super) struct Tls {
    pub(super) mode: SslMode,
    pub(super) connect: MakeRustlsConnect,
}

/// Extracts `sslmode` and `sslrootcert` from a URL; returns the rest of it and the settings.
pub(super) fn take_from(url: &str) -> Result<(String, Tls), ProfilesError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut root_file, mut kept) = ("prefer", None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = value,
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", file)) => root_file = Some(file),
            _ => kept.push(pair),
        }
    }
    let rest = if kept.is_empty() {
        base.to_owned()
    } else {
        format!("{base}?{}", kept.join("&"))
    };
    let (mode, verified) = match mode {
        "disable" => (SslMode::Disable, false),
        "allow" | "prefer" => (SslMode::Prefer, false),
        "require" => (SslMode::Require, root_file.is_some()),
        "verify-ca" | "verify-full" => (SslMode::Require, true),
        other => {
            return Err(setup(format!(
                "has sslmode={other}: write disable, prefer, require or verify-full"
            )));
        }
    };
    let connect = MakeRustlsConnect::new(client_config(verified, root_file)?);
    Ok((rest, Tls { mode, connect }))
}

fn client_config(verified: bool, root_file: Option<&str>) -> Result<ClientConfig, ProfilesError> {
    let verifier: Arc<dyn ServerCertVerifier> = if verified {
        tls::verifier(roots(root_file)?).map_err(|error| {
            setup(format!(
                "asks for verified TLS, but there is no certificate to trust ({error})"
            ))
        })?
    } else {
        Arc::new(AcceptAnyCertificate(tls::provider()))
    };
    tls::client_config(verifier)
        .map_err(|error| setup(format!("cannot be used with TLS ({error})")))
}

/// The trusted authorities: those of the file, or the system's.
fn roots(file: Option<&str>) -> Result<RootCertStore, ProfilesError> {
    let setting = file.map_or_else(
        || "asks for a checked certificate, but sslrootcert".to_owned(),
        |file| format!("has sslrootcert={file}, which"),
    );
    tls::roots(file.map(Path::new)).map_err(|error| setup(format!("{setting} {error}")))
}

fn setup(problem: String) -> ProfilesError {
    ProfilesError::Setup(format!("postgres.url (VIGIE_POSTGRES__URL) {problem}"))
}

/// Accepts any certificate, which is what `prefer` and `require` mean. Debian's Postgres has a self-signed one, and
/// under `prefer` an attacker in the middle could just as well refuse TLS.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<(String, SslMode), String> {
        let taken = take_from(url).map_err(|error| error.to_string());
        taken.map(|(rest, tls)| (rest, tls.mode))
    }

    #[test]
    fn sslmode_has_the_meaning_of_psql() {
        for (url, rest, wanted) in [
            ("postgres://h/d", "postgres://h/d", SslMode::Prefer),
            (
                "postgres://h/d?sslmode=disable",
                "postgres://h/d",
                SslMode::Disable,
            ),
            (
                "postgres://h/d?a=b&sslmode=require&c=d",
                "postgres://h/d?a=b&c=d",
                SslMode::Require,
            ),
        ] {
            assert_eq!(mode(url).unwrap(), (rest.to_owned(), wanted), "{url}");
        }
        let error = mode("postgres://h/d?sslmode=maybe").unwrap_err();
        assert!(error.contains("sslmode=maybe"), "{error}");
        let error =
            mode("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem").unwrap_err();
        assert!(error.contains("/nowhere.pem"), "{error}");
    }
}
