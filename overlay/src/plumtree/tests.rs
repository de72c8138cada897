//! Cores by hand in virtual time first, then networks of them.

mod by_hand;
mod hostile;
mod network;
mod pieces;
mod plain;
mod rooted;
mod together;
