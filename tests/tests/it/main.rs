//! The promises, the protocol and the operator's view, tested from outside against the real binaries.

mod harness;
