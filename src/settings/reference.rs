//! The list of all keys, each with an example, from the compiled-in `config/vigie.toml`.

const TEXT: &str = include_str!("../../config/vigie.toml");

/// All keys, in the order of `config/vigie.toml`.
pub(super) struct Reference(Vec<Key>);

struct Key {
    /// `section.key`, or the bare key at the top level.
    name: String,
    /// Value in `config/vigie.toml`, as TOML.
    example: &'static str,
}

impl Reference {
    pub(super) fn read() -> Self {
        let mut section = "";
        let mut keys = Vec::new();
        for line in TEXT.lines() {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']');
            } else if let Some((key, example)) = assignment(line) {
                let name = match section {
                    "" => key.to_owned(),
                    _ => format!("{section}.{key}"),
                };
                keys.push(Key { name, example });
            }
        }
        Self(keys)
    }

    /// Names of all keys, with their sections.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.name.as_str())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.names().any(|name| name == key)
    }

    pub(super) fn has_section(&self, section: &str) -> bool {
        !self.keys_of(section).is_empty()
    }

    /// A valid value of `key`, as TOML.
    pub(super) fn example(&self, key: &str) -> Option<&'static str> {
        let key = self.0.iter().find(|known| known.name == key)?;
        Some(key.example)
    }

    /// Suggests keys in place of an unknown one: the key with the same letters but other separators, those of its section,
    /// or those of the top level.
    pub(super) fn hint(&self, key: &str) -> String {
        let flat = key.replace('.', "_");
        if let Some(meant) = self.names().find(|name| name.replace('.', "_") == flat) {
            let variable = variable(meant);
            return format!("it reads {meant} in a file, {variable} in the environment");
        }
        let section = key.split('.').next().unwrap_or_default();
        match self.keys_of(section).as_slice() {
            [] => format!("at the top there are {}", self.top().join(", ")),
            keys => format!("section {section} has {}", keys.join(", ")),
        }
    }

    /// The keys of `section`, without its name.
    fn keys_of(&self, section: &str) -> Vec<&str> {
        let split = self.names().filter_map(|name| name.split_once('.'));
        split
            .filter(|(of, _)| *of == section)
            .map(|(_, key)| key)
            .collect()
    }

    /// The sections, and the keys outside any.
    fn top(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .names()
            .filter_map(|name| name.split('.').next())
            .collect();
        names.dedup();
        names
    }
}

/// The variable that sets `key`: `VIGIE_HTTP__LISTEN` for `http.listen`.
pub(super) fn variable(key: &str) -> String {
    format!("VIGIE_{}", key.replace('.', "__").to_uppercase())
}

/// Splits `key = value`; a key without a default is commented out as `# key = value`.
fn assignment(line: &'static str) -> Option<(&'static str, &'static str)> {
    let (key, value) = line.trim_start_matches("# ").split_once(" = ")?;
    let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_key.then_some((key, value))
}
