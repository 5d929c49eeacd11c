//! An authority of a test's own, and what it signs.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::process;

/// Signs certificates; its own one, and those, are files that are gone with it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

impl Authority {
    /// Makes one that nobody knows yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = "an authority of the tests";
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        let (directory, path) = process::scratch();
        std::fs::write(path.join("ca.pem"), own.pem()).expect("the directory is ours");
        Self {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    /// The file that whoever is to trust it needs.
    pub fn file(&self) -> String {
        let path = self.directory.path().join("ca.pem");
        path.to_str().expect("a plain path").to_owned()
    }

    /// Signs a certificate for a host, by its name or address.
    pub fn sign(&self, host: &str) -> Certificate {
        self.signed(host, |_| ())
    }

    /// Signs one that was good for a year, years ago.
    pub fn sign_expired(&self, host: &str) -> Certificate {
        self.signed(host, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn signed(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer);
        Certificate {
            chain: signed.expect("a certificate").pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Certificate {
    /// Writes both into a folder, as `server.crt` and `server.key`.
    pub fn write_to(&self, folder: &Path) {
        for (name, text) in [("server.crt", &self.chain), ("server.key", &self.key)] {
            std::fs::write(folder.join(name), text).expect("the folder is ours");
        }
    }
}
