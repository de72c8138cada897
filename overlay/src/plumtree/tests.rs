//! Cores by hand in virtual time first, then networks of them.

mod by_hand;
mod network;
mod together;
