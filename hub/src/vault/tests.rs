use std::os::unix::fs::PermissionsExt;

use super::*;

fn set(token: &str) -> TokenSet {
    TokenSet {
        access_token: Some(Secret::new(token)),
        refresh_token: Some(Secret::new(format!("{token}-refresh"))),
        token_type: "Bearer".into(),
        scope: None,
        expires_at: None,
        refresh_expires_at: None,
    }
}

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

fn grant(name: &str) -> GrantName {
    name.parse().unwrap()
}

#[test]
fn a_token_set_opens_as_what_it_was_sealed_as_and_as_nothing_else() {
    let vault = Vault::ephemeral();
    let (alice, bob) = (user("alice"), user("bob"));
    let (work, home) = (grant("p/work"), grant("p/home"));
    let sealed = vault.seal_tokens(&alice, &work, Version(3), &set("secret"));

    assert_eq!(
        vault.open_tokens(&alice, &work, Version(3), &sealed).unwrap(),
        set("secret")
    );
    assert!(matches!(
        vault.open_tokens(&bob, &work, Version(3), &sealed),
        Err(VaultError::Broken(_))
    ));
    assert!(matches!(
        vault.open_tokens(&alice, &home, Version(3), &sealed),
        Err(VaultError::Broken(_))
    ));
    assert!(matches!(
        vault.open_tokens(&alice, &work, Version(4), &sealed),
        Err(VaultError::Broken(_))
    ));
    assert!(matches!(
        vault.open_alternate(&alice, &work, Version(3), &sealed),
        Err(VaultError::Broken(_))
    ));
    assert!(vault.open_sealed("tokens", &sealed).is_err());
}

#[test]
fn parts_of_the_associated_data_do_not_run_into_each_other() {
    assert_ne!(About::parts(&[b"ab", b"c"]).0, About::parts(&[b"a", b"bc"]).0);
    assert_ne!(About::parts(&[b"ab"]).0, About::parts(&[b"ab", b""]).0);
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let vault = Vault::ephemeral();
    let sealed = vault.seal("context", b"plain");
    assert_eq!(*vault.open_sealed("context", &sealed).unwrap(), b"plain");
    for at in 0..sealed.bytes.len() {
        let mut broken = sealed.clone();
        broken.bytes[at] ^= 1;
        assert!(vault.open_sealed("context", &broken).is_err(), "byte {at}");
    }
    for length in 0..sealed.bytes.len() {
        let cut = Sealed {
            key: sealed.key,
            bytes: sealed.bytes[..length].to_vec(),
        };
        assert!(vault.open_sealed("context", &cut).is_err(), "length {length}");
    }
}

#[test]
fn a_missing_key_is_named() {
    let (one, other) = (Vault::ephemeral(), Vault::ephemeral());
    let sealed = one.seal("context", b"plain");
    let error = other.open_sealed("context", &sealed).unwrap_err().to_string();
    assert!(error.contains(&one.key_ids()[0].to_string()), "{error}");
    assert!(error.contains(&other.key_ids()[0].to_string()), "{error}");
}

#[test]
fn the_key_file_is_made_once_and_only_if_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.key");
    assert!(matches!(Vault::open(&path, false), Err(VaultError::Absent(_))));
    let made = Vault::open(&path, true).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let sealed = made.seal("context", b"plain");

    let again = Vault::open(&path, true).unwrap();
    assert_eq!(*again.open_sealed("context", &sealed).unwrap(), b"plain");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing else is left behind"
    );
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.key");
    Vault::open(&path, true).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Vault::open(&path, true).unwrap_err().to_string();
    assert!(error.contains("0640"), "{error}");
}

#[test]
fn a_new_key_before_the_old_one_seals_while_the_old_one_still_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockstep.key");
    let old = Vault::open(&path, true).unwrap();
    let sealed = old.seal("context", b"plain");

    let other = dir.path().join("other.key");
    Vault::open(&other, true).unwrap();
    let text = [
        std::fs::read_to_string(&other).unwrap(),
        std::fs::read_to_string(&path).unwrap(),
    ]
    .concat();
    std::fs::write(&path, text).unwrap();

    let both = Vault::open(&path, false).unwrap();
    assert_eq!(both.key_ids()[1], old.key_ids()[0]);
    assert_eq!(*both.open_sealed("context", &sealed).unwrap(), b"plain");
    assert_eq!(both.seal("context", b"plain").key, both.key_ids()[0].0);
}

#[test]
fn a_bad_line_is_named_and_not_shown() {
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]);
    for (text, place, what) in [
        ("# nothing\n", "file", "holds no key"),
        ("\nhunter2 \n", "line 2", "base64"),
        ("aGVsbG8=", "line 1", "32 bytes"),
        (&format!("00000000 {key}"), "line 1", "not that of the key"),
        (&format!("{key},{key}"), "line 2", "twice"),
        (&format!("xyz {key}"), "line 1", "hex"),
    ] {
        let error = Keys::parse(text, "file").err().unwrap().to_string();
        assert!(error.contains(place) && error.contains(what), "{text:?}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(&key), "{error}");
    }
    assert!(Keys::parse(&key, "environment").is_ok(), "an id may be left out");
}

#[test]
fn hashes_tell_tokens_apart_and_are_no_plain_sha256() {
    let hash = Vault::hash(&Secret::new("a"));
    assert_eq!(hash, Vault::hash(&Secret::new("a")));
    assert_ne!(hash, Vault::hash(&Secret::new("b")));
    assert_ne!(hash.0, digest::digest(&digest::SHA256, b"a").as_ref());
}

#[test]
fn keys_are_added_and_removed_in_the_file_first_and_comments_stay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let vault = Vault::open(&file, true).unwrap();
    let old = vault.key_ids()[0];
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("# ours\n{text}")).unwrap();
    let before = vault.seal("x", b"plain");

    let new = vault.add_key().unwrap();
    assert_eq!(vault.key_ids(), [new, old]);
    assert_eq!(Vault::open(&file, false).unwrap().key_ids(), [new, old]);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(&*vault.open_sealed("x", &before).unwrap(), b"plain");
    let after = vault.reseal("x", &before).unwrap().unwrap();
    assert_eq!(after.key, new.0);
    assert!(vault.reseal("x", &after).unwrap().is_none(), "sealed with the newest");

    assert!(matches!(vault.remove_key(new), Err(VaultError::InUse(_))));
    vault.remove_key(old).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("# ours") && !text.contains(&old.to_string()), "{text}");
    let told = vault.open_sealed("x", &before).unwrap_err().to_string();
    assert!(told.contains(&old.to_string()), "{told}");
    assert_eq!(&*vault.open_sealed("x", &after).unwrap(), b"plain");
    assert!(matches!(Vault::ephemeral().add_key(), Err(VaultError::NotAFile)));
}
