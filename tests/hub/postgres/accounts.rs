//! Accounts and avatars as the hub changes and reads them.

use vigie::internals::{Image, Part, ProfilesError};

use super::{AWKWARD, account, assert_noted, forget, id, populated, told};
use crate::harness::{ADA, BOB, EVE, Postgres};

/// Goal: an account is created once and changed from then on.
/// Method: first call, repeat, another name, another avatar.
#[tokio::test]
async fn an_account_is_created_and_changed() {
    let postgres = Postgres::start().await;
    let profiles = postgres.profiles();
    let mut last = 0;
    for (username, avatar, wanted) in [
        ("ada", None, Some(("ada", ""))),
        ("ada", None, None),
        ("Ada", Some("/a.png"), Some(("Ada", "/a.png"))),
        ("Ada", Some("/a.png"), None),
        ("Ada L.", None, Some(("Ada L.", "/a.png"))),
        ("Ada L.", Some(""), Some(("Ada L.", ""))),
    ] {
        let changes = profiles
            .put_account(id(ADA), username, avatar)
            .await
            .expect("stored");
        assert_noted(&postgres, &changes).await;
        forget(&postgres).await;
        let Some((username, avatar)) = wanted else {
            assert_eq!(changes, [], "{username} {avatar:?}");
            continue;
        };
        assert_eq!(told(&changes), [(ADA, Part::Profile)]);
        let stored = account(&profiles, ADA).await;
        assert_eq!(
            (stored.username.as_str(), stored.avatar.as_str()),
            (username, avatar)
        );
        assert_eq!(stored.revisions.profile, changes[0].revision);
        assert!(changes[0].revision > last);
        last = changes[0].revision;
    }
    let json = serde_json::to_value(account(&profiles, ADA).await).expect("JSON");
    assert_eq!(
        json["stats"],
        serde_json::json!({ "wins": 0, "losses": 0, "ratio": 0.0 })
    );
    assert_eq!(
        (&json["friends"], &json["matches"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
}

/// Goal: texts are stored to the letter; the one character that Postgres cannot hold is refused in words.
/// Method: names that are SQL, and names with U+0000, through every call that takes a text.
#[tokio::test]
async fn texts_are_stored_to_the_letter() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    for text in AWKWARD {
        profiles
            .put_account(id(ADA), text, Some(text))
            .await
            .expect("stored");
        let stored = account(&profiles, ADA).await;
        assert_eq!(
            (stored.username.as_str(), stored.avatar.as_str()),
            (text, text)
        );
        profiles.rename(id(BOB), text).await.expect("stored");
        profiles
            .set_avatar_url(id(BOB), text)
            .await
            .expect("stored");
        let stored = account(&profiles, BOB).await;
        assert_eq!(
            (stored.username.as_str(), stored.avatar.as_str()),
            (text, text)
        );
        assert_eq!(profiles.avatar(id(BOB), text).await, Ok(None));
    }
    let image = Image {
        media_type: "image/\0".to_owned(),
        bytes: vec![0],
    };
    for refused in [
        profiles.put_account(id(ADA), "a\0", None).await,
        profiles.put_account(id(ADA), "a", Some("\0")).await,
        profiles.rename(id(ADA), "\0a").await,
        profiles.set_avatar_url(id(ADA), "a\0b").await,
        profiles.set_avatar_image(id(ADA), &image).await,
    ] {
        assert!(
            matches!(refused, Err(ProfilesError::Invalid(_))),
            "{refused:?}"
        );
    }
    assert_eq!(profiles.avatar(id(ADA), "\0").await, Ok(None));
    assert_eq!(postgres.psql("SELECT count(*) FROM users").await, "3");
}

/// Goal: renaming and avatars concern accounts that exist; a repeat changes nothing.
/// Method: first call, repeat, unknown user, deleted account.
#[tokio::test]
async fn names_and_avatars_change_once() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let image = Image {
        media_type: "image/png".to_owned(),
        bytes: b"not really".to_vec(),
    };
    for _ in 0..2 {
        let first = account(&profiles, ADA).await.username == "ada";
        for changes in [
            profiles.rename(id(ADA), "Ada").await,
            profiles
                .set_avatar_url(id(BOB), "https://pics.example/b.png")
                .await,
            profiles.set_avatar_image(id(EVE), &image).await,
        ] {
            let changes = changes.expect("stored");
            assert_eq!(changes.len(), usize::from(first), "{changes:?}");
            assert!(changes.iter().all(|change| change.part == Part::Profile));
        }
    }
    profiles.delete_account(id(ADA)).await.expect("deleted");
    for (user, wanted) in [
        (99, ProfilesError::NoSuchUser(id(99))),
        (ADA, ProfilesError::AccountDeleted(id(ADA))),
    ] {
        for refused in [
            profiles.rename(id(user), "x").await,
            profiles.set_avatar_url(id(user), "x").await,
            profiles.set_avatar_image(id(user), &image).await,
        ] {
            assert_eq!(refused, Err(wanted.clone()));
        }
    }
    let refused = profiles.put_account(id(ADA), "again", None).await;
    assert_eq!(refused, Err(ProfilesError::AccountDeleted(id(ADA))));
}

/// Goal: a user has one uploaded image at most, served under a URL that changes with it.
/// Method: an image, another one, a URL of somebody else's, an image again, then the account is deleted.
#[tokio::test]
async fn one_image_is_kept() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let image = |bytes: &[u8]| Image {
        media_type: "image/png".to_owned(),
        bytes: bytes.to_vec(),
    };
    let (first, second) = (image(&[0, 1, 255]), image(b""));
    profiles
        .set_avatar_image(id(ADA), &first)
        .await
        .expect("stored");
    assert_eq!(account(&profiles, ADA).await.avatar, first.url(id(ADA)));
    assert_eq!(
        profiles.avatar(id(ADA), &first.hash()).await,
        Ok(Some(first.clone()))
    );
    assert_eq!(profiles.avatar(id(BOB), &first.hash()).await, Ok(None));

    profiles
        .set_avatar_image(id(ADA), &second)
        .await
        .expect("stored");
    assert_eq!(profiles.avatar(id(ADA), &first.hash()).await, Ok(None));
    assert_eq!(
        profiles.avatar(id(ADA), &second.hash()).await,
        Ok(Some(second.clone()))
    );

    // Its own URL keeps it, also where a back end writes it.
    let own = second.url(id(ADA));
    profiles
        .put_account(id(ADA), "ada", Some(&own))
        .await
        .expect("stored");
    assert_eq!(postgres.psql("SELECT count(*) FROM avatars").await, "1");
    profiles
        .set_avatar_url(id(ADA), "/elsewhere.png")
        .await
        .expect("stored");
    assert_eq!(postgres.psql("SELECT count(*) FROM avatars").await, "0");

    profiles
        .set_avatar_image(id(ADA), &first)
        .await
        .expect("stored");
    profiles.delete_account(id(ADA)).await.expect("deleted");
    assert_eq!(profiles.avatar(id(ADA), &first.hash()).await, Ok(None));
    assert_eq!(postgres.psql("SELECT count(*) FROM avatars").await, "0");
}

/// Goal: deleting an account leaves nothing of it but its matches, tells its friends, and happens once.
/// Method: an account with two friends and a request; repeat; unknown user.
#[tokio::test]
async fn an_account_is_deleted_once() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    for (one, other) in [(ADA, BOB), (BOB, ADA), (ADA, EVE), (EVE, ADA), (EVE, BOB)] {
        profiles
            .ask_friendship(id(one), id(other))
            .await
            .expect("asked");
    }
    forget(&postgres).await;
    let changes = profiles.delete_account(id(ADA)).await.expect("deleted");
    assert_eq!((changes[0].user, changes[0].part), (id(ADA), Part::Deleted));
    assert_eq!(
        told(&changes),
        [
            (BOB, Part::Friends),
            (ADA, Part::Deleted),
            (EVE, Part::Friends)
        ]
    );
    assert_noted(&postgres, &changes).await;
    let deleted = account(&profiles, ADA).await;
    assert!(deleted.deleted && deleted.username.is_empty() && deleted.avatar.is_empty());
    assert!(account(&profiles, BOB).await.friends.is_empty());
    // The request between the others is still there.
    assert_eq!(postgres.psql("SELECT count(*) FROM friendships").await, "1");

    assert_eq!(profiles.delete_account(id(ADA)).await, Ok(vec![]));
    assert_eq!(
        profiles.delete_account(id(99)).await,
        Err(ProfilesError::NoSuchUser(id(99)))
    );
}

/// Goal: many accounts are read at once, and who is unknown is left out.
/// Method: all of them and one more, twice the same, none.
#[tokio::test]
async fn many_accounts_are_read_at_once() {
    let postgres = populated().await;
    let profiles = postgres.profiles();
    let asked = [ADA, 99, BOB, BOB, EVE].map(id);
    let read = profiles.read(&asked).await.expect("postgres answers");
    let mut users: Vec<u64> = read.iter().map(|account| account.user.get()).collect();
    users.sort_unstable();
    assert_eq!(users, [BOB, ADA, EVE]);
    assert!(
        profiles
            .read(&[])
            .await
            .expect("postgres answers")
            .is_empty()
    );
    let largest = id(9_007_199_254_740_991);
    profiles
        .put_account(largest, "max", None)
        .await
        .expect("stored");
    assert_eq!(account(&profiles, largest.get()).await.username, "max");
}
