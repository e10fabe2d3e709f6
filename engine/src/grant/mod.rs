//! One grant's machine.

mod command;
mod input;
mod note;

pub use command::{Command, CommitRequest, Passing, Reply, Verdict};
pub use input::{
    Ask, Asker, Candidate, ClaimAnswer, CommitAnswer, Input, Login, PermitAnswer, ProviderReply, Trouble, WaiterId,
};
pub use note::Note;
