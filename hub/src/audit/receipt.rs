//! Receipts: the record of one commit, signed, for a device of its user.
//!
//! A device that keeps one can tell later whether the history that the hub shows then still has it (`lockstep-hub audit
//! verify --known`): the link speaks for that record and all before it.

use std::{fs::File, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lockstep_protocol::{GrantName, UserId, Version};
use serde::Serialize;

use super::{
    AuditError, Event, Link, PublicKey, Signer,
    chain::{self, Line},
    file::{self, Lines, Raw},
};

/// How many files are searched, the newest first. One holds some 30,000 records.
const MOST_FILES: usize = 4;

/// A record, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Its number.
    pub n: u64,
    /// What is hashed, byte for byte: a JSON object without its closing brace.
    pub record: String,
    /// SHA-256 of `lockstep audit record v1`, a zero byte, and `record`; in hex.
    pub link: Link,
    /// Ed25519 of the 32 bytes of `link`, in base64url.
    pub sig: String,
    /// The key that verifies it, in base64url: the same for every record of the hub.
    pub key: String,
}

/// Searches the chain in `dir` for the commit of a version. A grant that was deleted and made anew goes on above its old
/// versions, so there is one.
pub(super) fn find(
    dir: &Path,
    signer: &Signer,
    user: &UserId,
    grant: &GrantName,
    version: Version,
) -> Result<Option<Receipt>, AuditError> {
    for number in file::numbers(dir)?.into_iter().rev().take(MOST_FILES) {
        let path = file::path(dir, number);
        let fail = |error| file::io(&path, error);
        let mut lines = match Lines::open(&path) {
            // Dropped meanwhile, for its age.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            lines => lines.map_err(fail)?,
        };
        while let Some(Raw::Line(text)) = lines.next().map_err(fail)? {
            // Parsed only if it looks like it: most lines are others.
            if text.contains("\"event\":\"commit\"")
                && text.contains(grant.as_str())
                && is_it(&text, user, grant, version)
            {
                let is_ours = is_signed_for(&text, &mut lines, signer.public()).map_err(fail)?;
                return Ok(receipt(&text, signer).filter(|_| is_ours));
            }
        }
    }
    Ok(None)
}

fn is_it(text: &str, user: &UserId, grant: &GrantName, version: Version) -> bool {
    let Ok(line) = Line::read_link(text) else { return false };
    matches!(
        line.record.event,
        Event::Commit { user: of, grant: at, version: it, .. } if of == *user && at == *grant && it == version
    )
}

/// Whether the hub signed for this line when it wrote it, or for one right after it. Who writes into the files must not get a
/// signature by asking for a receipt; what was found without one at a start is not given one either.
fn is_signed_for(text: &str, lines: &mut Lines<File>, public: &PublicKey) -> std::io::Result<bool> {
    let Ok(mut line) = Line::read(text, public) else {
        return Ok(false);
    };
    while !line.signed {
        let Some(Raw::Line(text)) = lines.next()? else {
            return Ok(false);
        };
        line = match Line::read(&text, public) {
            Ok(next) if next.record.prev == line.link => next,
            _ => return Ok(false),
        };
    }
    Ok(!matches!(
        line.record.event,
        Event::Unsigned { .. } | Event::Started { .. }
    ))
}

fn receipt(text: &str, signer: &Signer) -> Option<Receipt> {
    let line = Line::read_link(text).ok()?;
    Some(Receipt {
        n: line.record.n,
        record: chain::record_of(text)?.to_owned(),
        link: line.link,
        sig: URL_SAFE_NO_PAD.encode(signer.sign(line.link)),
        key: signer.public().as_str().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use lockstep_protocol::frame::Cause;

    use super::*;
    use crate::audit::{Audit, Head, verify::verify};
    use crate::clock;

    fn commit(user: &str, version: u64) -> Event {
        Event::Commit {
            user: user.parse().unwrap(),
            grant: "example/main".parse().unwrap(),
            version: Version(version),
            cause: Cause::Login,
            by: None,
            access_token: None,
        }
    }

    #[tokio::test]
    async fn a_receipt_holds_on_its_own_and_against_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), "here", Signer::ephemeral().unwrap(), None, Head::START).unwrap();
        for version in 1..=20 {
            audit.record(commit("alice", version));
            audit.record(commit("bob", version));
        }
        let receipt = async |user: &str, version| {
            let (user, grant) = (user.parse().unwrap(), "example/main".parse().unwrap());
            audit.receipt(user, grant, Version(version)).await.unwrap()
        };
        let mine = receipt("alice", 7).await.unwrap();
        assert!(mine.record.contains("alice") && !mine.record.contains("bob"));
        assert_eq!(chain::link_of(&mine.record), mine.link);
        let key = PublicKey::parse(&mine.key).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(&mine.sig).unwrap();
        assert!(key.verifies(mine.link, &signature));
        assert!(serde_json::from_str::<serde_json::Value>(&format!("{}}}", mine.record)).is_ok());

        let known = Head {
            n: mine.n,
            link: mine.link,
        };
        let public = audit.public_key().unwrap().clone();
        assert!(verify(dir.path(), &public, &[known]).unwrap().is_clean());
        let other = Head {
            link: Link([7; 32]),
            ..known
        };
        assert!(!verify(dir.path(), &public, &[other]).unwrap().is_clean());

        assert_eq!(receipt("alice", 21).await, None);
        // What somebody else put there is not signed for by being asked for.
        let (mut head, mut forged) = (*audit.head().unwrap().borrow(), Vec::new());
        chain::append(
            &mut head,
            "here",
            (clock::unix(), commit("alice", 21)),
            None,
            &mut forged,
        );
        let newest = file::path(dir.path(), 1);
        let text = [std::fs::read(&newest).unwrap(), forged].concat();
        std::fs::write(newest, text).unwrap();
        assert_eq!(receipt("alice", 21).await, None);
        assert_eq!(receipt("carol", 7).await, None);
    }
}
