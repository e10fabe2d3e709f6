//! The provider client and its limiter.
