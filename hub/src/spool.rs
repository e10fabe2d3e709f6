//! Results that the store refused, kept on this node.
