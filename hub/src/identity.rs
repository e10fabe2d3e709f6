//! Who is speaking: devices, their tokens, slaves.
