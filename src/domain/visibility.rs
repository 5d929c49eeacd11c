//! Which view of a user a viewer gets, and what the public view contains.
//!
//! The public view is an allow-list of fields, never a deny-list.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::ids::UserId;

/// How much of a user a viewer may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Only the public fields.
    Public,
    /// Everything: for the user and friends.
    Full,
}

/// The allow-list of public fields.
#[derive(Clone, Debug)]
pub(crate) struct Visibility {
    public_fields: HashSet<String>,
}

impl Visibility {
    /// Makes the named fields public.
    pub(crate) fn new(public_fields: &[String]) -> Self {
        Self {
            public_fields: public_fields.iter().cloned().collect(),
        }
    }

    /// Whether everybody may see a field.
    pub(crate) fn is_public(&self, field: &str) -> bool {
        self.public_fields.contains(field)
    }

    /// Filters a JSON object down to its public fields.
    ///
    /// # Errors
    /// If `full` is not a JSON object.
    pub(crate) fn public_view(&self, full: &RawValue) -> Result<Arc<RawValue>, serde_json::Error> {
        let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(full.get())?;
        fields.retain(|field, _| self.is_public(field));
        serde_json::value::to_raw_value(&fields).map(Arc::from)
    }
}

/// The view of `user` for `viewer` (`None` for a guest). If the user's friends are unknown (`None`), nobody counts as
/// one.
pub(crate) fn view_of(
    user: UserId,
    viewer: Option<UserId>,
    friends: Option<&HashSet<UserId>>,
) -> View {
    let is_friend = |viewer: &UserId| friends.is_some_and(|friends| friends.contains(viewer));
    match viewer {
        Some(viewer) if viewer == user || is_friend(&viewer) => View::Full,
        Some(_) | None => View::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public_view(full: &str) -> String {
        let visibility = Visibility::new(&["username".to_owned(), "avatar".to_owned()]);
        let full = RawValue::from_string(full.to_owned()).expect("valid JSON");
        visibility
            .public_view(&full)
            .expect("an object")
            .get()
            .to_owned()
    }

    #[test]
    fn only_listed_fields_pass() {
        let full = r#"{"username":"ada","email":"a@b","avatar":{"email":1},"Username":"x","__proto__":{}}"#;
        assert_eq!(
            public_view(full),
            r#"{"avatar":{"email":1},"username":"ada"}"#
        );
    }

    #[test]
    fn values_pass_to_the_letter() {
        assert_eq!(
            public_view(r#"{"username":12345678901234567890.10}"#),
            r#"{"username":12345678901234567890.10}"#
        );
    }

    #[test]
    fn only_objects_have_a_public_view() {
        let visibility = Visibility::new(&["username".to_owned()]);
        for full in ["[]", "1", "\"username\"", "null"] {
            let full = RawValue::from_string(full.to_owned()).expect("valid JSON");
            assert!(visibility.public_view(&full).is_err(), "{full}");
        }
    }

    #[test]
    fn friends_and_the_user_see_everything() {
        let [ada, bob, eve] = [1, 2, 3].map(|id| UserId::try_from(id).expect("a valid id"));
        let friends = HashSet::from([bob]);
        for known in [Some(&friends), None] {
            assert_eq!(view_of(ada, Some(ada), known), View::Full);
            assert_eq!(view_of(ada, Some(eve), known), View::Public);
            assert_eq!(view_of(ada, None, known), View::Public);
        }
        assert_eq!(view_of(ada, Some(bob), Some(&friends)), View::Full);
        assert_eq!(view_of(ada, Some(bob), None), View::Public);
    }
}
