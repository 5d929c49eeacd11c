//! Warns about files with secrets or keys that others may read or write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Settings;

/// Forbidden mode bits of a secret: others have no access, and the group may read, so that a service and its operators can
/// share it, but not write.
const SECRET_FORBIDDEN: u32 = 0o027;

/// Forbidden mode bits of public keys: anybody may read them, but write access decides whose tokens are trusted.
const PUBLIC_KEY_FORBIDDEN: u32 = 0o022;

impl Settings {
    /// One sentence for each file with too permissive a mode.
    pub(super) fn open_files(&self) -> Vec<String> {
        let secrets = self.files_with_secrets().into_iter();
        let secrets = secrets.filter_map(|(who, path)| {
            let mode = mode(path?).filter(|mode| mode & SECRET_FORBIDDEN != 0)?;
            let path = path?.display();
            Some(format!("{who} {path}, whose mode {mode:03o} lets others read or change it: run `chmod g-w,o= {path}`"))
        });
        let public = self.files_with_public_keys().into_iter();
        let public = public.filter_map(|(who, path)| {
            let mode = mode(path?).filter(|mode| mode & PUBLIC_KEY_FORBIDDEN != 0)?;
            let path = path?.display();
            Some(format!(
                "{who} {path}, whose mode {mode:03o} lets others change it: run `chmod go-w {path}`"
            ))
        });
        secrets.chain(public).collect()
    }

    fn files_with_secrets(&self) -> [(&'static str, Option<&Path>); 7] {
        let (internal, auth) = (&self.internal, &self.auth);
        [
            ("a secret is in", self.secrets_in.as_deref()),
            (
                "internal.api_key_file names",
                internal.api_key_file.as_deref(),
            ),
            (
                "internal.api_keys_file names",
                internal.api_keys_file.as_deref(),
            ),
            ("redis.url_file names", self.redis.url_file.as_deref()),
            ("postgres.url_file names", self.postgres.url_file.as_deref()),
            ("auth.secret_file names", auth.secret_file.as_deref()),
            (
                "auth.previous_secret_file names",
                auth.previous_secret_file.as_deref(),
            ),
        ]
    }

    fn files_with_public_keys(&self) -> [(&'static str, Option<&Path>); 4] {
        let auth = &self.auth;
        [
            (
                "auth.public_key_file names",
                auth.public_key_file.as_deref(),
            ),
            (
                "auth.previous_public_key_file names",
                auth.previous_public_key_file.as_deref(),
            ),
            ("auth.jwks_file names", auth.jwks_file.as_deref()),
            ("redis.ca_file names", self.redis.ca_file.as_deref()),
        ]
    }
}

/// Permission bits of a file; `None` if it is missing, which is reported elsewhere.
fn mode(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    Some(metadata.permissions().mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::reference::Reference;

    fn with_mode(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a writable directory");
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(file.path(), permissions).expect("the file is ours");
        file
    }

    fn warnings(mode: u32, set: impl Fn(&mut Settings, &Path)) -> String {
        let file = with_mode(mode);
        let mut settings = Settings::default();
        set(&mut settings, file.path());
        let path = file.path().display().to_string();
        settings.open_files().join("\n").replace(&path, "FILE")
    }

    #[test]
    fn secrets_are_for_the_owner_and_perhaps_the_group() {
        let secret = |mode| {
            warnings(mode, |settings, path| {
                settings.auth.secret_file = Some(path.to_owned())
            })
        };
        for good in [0o600, 0o400, 0o640, 0o440, 0o700, 0o750] {
            assert_eq!(secret(good), "", "{good:o}");
        }
        for bad in [0o644, 0o604, 0o602, 0o601, 0o620, 0o660, 0o777] {
            assert_ne!(secret(bad), "", "{bad:o}");
        }
        assert_eq!(
            secret(0o644),
            "auth.secret_file names FILE, whose mode 644 lets others read or change it: run `chmod g-w,o= FILE`"
        );
    }

    #[test]
    fn public_keys_are_changed_by_their_owner_alone() {
        let key = |mode| {
            warnings(mode, |settings, path| {
                settings.auth.jwks_file = Some(path.to_owned())
            })
        };
        for good in [0o644, 0o444, 0o600, 0o755] {
            assert_eq!(key(good), "", "{good:o}");
        }
        assert_eq!(
            key(0o666),
            "auth.jwks_file names FILE, whose mode 666 lets others change it: run `chmod go-w FILE`"
        );
        assert_ne!(key(0o664), "");
    }

    #[test]
    fn every_file_that_settings_name_is_looked_at() {
        let settings = Settings::default();
        let secrets = settings.files_with_secrets();
        let public = settings.files_with_public_keys();
        let looked_at: Vec<_> = secrets.iter().chain(&public).map(|(who, _)| *who).collect();
        for key in Reference::read()
            .names()
            .filter(|key| key.ends_with("_file"))
        {
            assert!(
                looked_at.contains(&format!("{key} names").as_str()),
                "{key}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_no_open_one() {
        let mut settings = Settings::default();
        settings.auth.secret_file = Some("/nowhere".into());
        assert!(settings.open_files().is_empty());
    }
}
