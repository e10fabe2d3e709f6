//! Names come from URLs and frames: what passes is safe in a path, whole, and within its limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lockstep_protocol::{GrantName, UserId};

fn safe_segment(text: &str, longest: usize) -> bool {
    !text.is_empty()
        && text.len() <= longest
        && text != "."
        && text != ".."
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._@-".contains(c))
}

fuzz_target!(|text: &str| {
    let user = text.parse::<UserId>();
    assert_eq!(user.is_ok(), safe_segment(text, UserId::LONGEST));
    assert!(user.is_ok_and(|user| user.as_str() == text) || !safe_segment(text, UserId::LONGEST));

    let right = text.split('/').count() == 2 && text.split('/').all(|part| safe_segment(part, GrantName::LONGEST_PART));
    let grant = text.parse::<GrantName>();
    assert_eq!(grant.is_ok(), right);
    if let Ok(grant) = grant {
        assert_eq!(grant.as_str(), text);
        assert_eq!(GrantName::new(grant.provider(), grant.account()), Ok(grant));
    }
});
