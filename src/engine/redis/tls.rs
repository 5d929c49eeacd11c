//! Interprets the URL of Redis: the servers, and TLS.

use std::path::Path;
use std::sync::Arc;

use fred::error::{Error, ErrorKind};
use fred::prelude::Config;
use fred::types::config::{TlsConfig, TlsConnector};
use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;

use super::RedisOptions;
use crate::engine::{ErrorReply, OpenError};
use crate::tls::{self, LastRefusal};

/// URL schemes with TLS, and their counterparts without; suffixes (`-cluster`, `-sentinel`) are kept.
const SCHEMES: [(&str, &str); 2] = [("rediss", "redis"), ("valkeys", "valkey")];

const UNKNOWN_ISSUER: &str = "its certificate is not signed by a trusted authority; name the PEM file of the authority that \
                              signed it in redis.ca_file (VIGIE_REDIS__CA_FILE)";

const PLAIN_TO_ENCRYPTED: &str = "; if it takes encrypted connections only, write rediss://";

const ENCRYPTED_TO_PLAIN: &str = "; if it takes no encrypted connections, write redis://";

/// The configuration for fred, and the trust of its TLS, if it has any. Every server, Sentinel or Cluster node must present
/// a certificate for its host.
pub(super) fn config(options: &RedisOptions) -> Result<(Config, Option<Trust>), OpenError> {
    // fred would load the system's certificates for such a URL, and fail if one of them is invalid.
    let Some(url) = without_tls(&options.url) else {
        return Ok((config_of(&options.url)?, None));
    };
    let trust = Trust::new(options.ca_file.as_deref())?;
    let mut config = config_of(&url)?;
    config.tls = Some(trust.connector(&LastRefusal::default())?);
    Ok((config, Some(trust)))
}

fn config_of(url: &str) -> Result<Config, OpenError> {
    Config::from_url(url).map_err(|error| OpenError::Url(error.details().to_owned()))
}

/// The URL without TLS; `None` if it has none.
fn without_tls(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    SCHEMES.iter().find_map(|(encrypted, plain)| {
        let kind = scheme.strip_prefix(encrypted)?;
        Some(format!("{plain}{kind}://{rest}"))
    })
}

/// The authorities whose certificates count.
#[derive(Debug)]
pub(super) struct Trust(Arc<WebPkiServerVerifier>);

impl Trust {
    fn new(ca_file: Option<&Path>) -> Result<Self, OpenError> {
        let verifier = tls::verifier(tls::roots(ca_file)?);
        verifier
            .map(Self)
            .map_err(|error| OpenError::Url(error.to_string()))
    }

    /// TLS for one client, which notes in `refusal` why it refuses a certificate.
    pub(super) fn connector(&self, refusal: &LastRefusal) -> Result<TlsConfig, OpenError> {
        let verifier = tls::recording(self.0.clone(), refusal.clone());
        let config =
            tls::client_config(verifier).map_err(|error| OpenError::Url(error.to_string()))?;
        Ok(TlsConfig::from(TlsConnector::from(config)))
    }
}

/// The fault of a certificate, with advice.
fn advice(refused: &CertificateError) -> &'static str {
    match refused {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired; renew it, or correct the clock of this machine"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet; correct the clock of this machine, or wait"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for another host; write the host that it names in redis.url (VIGIE_REDIS__URL), or give \
             the server one for this host"
        }
        refused if tls::is_untrusted(refused) => UNKNOWN_ISSUER,
        _ => "its certificate is not valid; renew it",
    }
}

/// Why a server could not be reached, with advice about TLS: `refusal` is set where its certificate was refused.
pub(super) fn open_error(
    server: String,
    error: &Error,
    encrypted: bool,
    refusal: &LastRefusal,
) -> OpenError {
    let details = error.details();
    if let Some(refusal) = ErrorReply::read(details) {
        return OpenError::Refused { server, refusal };
    }
    if let Some(refused) = refusal.take() {
        return OpenError::Untrusted {
            server,
            problem: advice(&refused),
            cause: details.to_owned(),
        };
    }
    let hint = if encrypted && (is_timeout(error) || is_protocol_mismatch(error)) {
        ENCRYPTED_TO_PLAIN
    } else if !encrypted && is_protocol_mismatch(error) {
        PLAIN_TO_ENCRYPTED
    } else {
        ""
    };
    let cause = format!("{details}{hint}");
    OpenError::Unreachable { server, cause }
}

/// Redis waits for the rest of a command when it receives a TLS handshake.
fn is_timeout(error: &Error) -> bool {
    *error.kind() == ErrorKind::Timeout
}

/// Whether the two sides did not speak the same protocol.
fn is_protocol_mismatch(error: &Error) -> bool {
    let words = [
        "ConnectionReset",
        "UnexpectedEof",
        "BrokenPipe",
        "InvalidMessage",
        "Connection closed",
        "Connection Closed",
    ];
    let is_known = words.iter().any(|word| error.details().contains(word));
    is_known || matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Canceled)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options(url: &str, ca_file: Option<&Path>) -> RedisOptions {
        RedisOptions {
            url: url.to_owned(),
            ca_file: ca_file.map(Path::to_owned),
            prefix: "vigie".to_owned(),
            partitions: 1,
            profile_ttl: Duration::from_secs(1),
            revocation_ttl: Duration::from_secs(1),
            command_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn every_kind_of_tls_url_uses_the_file() {
        let folder = tempfile::tempdir().expect("a writable directory");
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        let authority = rcgen::generate_simple_self_signed(["redis.example".to_owned()]);
        let authority = authority.expect("a certificate").cert.pem();
        std::fs::write(&good, authority).expect("the folder is ours");
        std::fs::write(&bad, "").expect("the folder is ours");
        for url in [
            "rediss://h:1",
            "valkeys://h",
            "rediss-cluster://h:1?node=i:2",
            "valkeys-cluster://h:1",
            "rediss-sentinel://h?sentinelServiceName=m&sentinelPassword=p",
        ] {
            assert!(
                config(&options(url, Some(&good))).expect(url).0.uses_tls(),
                "{url}"
            );
            let refused = config(&options(url, Some(&bad))).expect_err(url);
            assert!(matches!(refused, OpenError::Trust(_)), "{url}: {refused}");
        }
        for url in [
            "redis://h",
            "valkey-cluster://h:1",
            "redis-sentinel://h?sentinelServiceName=m",
        ] {
            assert!(
                !config(&options(url, None)).expect(url).0.uses_tls(),
                "{url}"
            );
        }
    }

    #[test]
    fn only_the_scheme_changes_without_encryption() {
        for (url, plain) in [
            (
                "rediss://a:b@h:1/2?c=rediss://",
                Some("redis://a:b@h:1/2?c=rediss://"),
            ),
            ("rediss-cluster://h", Some("redis-cluster://h")),
            ("valkeys-sentinel://h", Some("valkey-sentinel://h")),
            ("redis://h", None),
            ("valkey://h", None),
        ] {
            assert_eq!(without_tls(url).as_deref(), plain, "{url}");
        }
    }
}
