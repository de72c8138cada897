//! Values that follow from the secret of a cluster and tell nothing about it.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::identity::{ClusterName, ClusterSecret};

/// 32 bytes that only who knows the secret can compute, different for each purpose and cluster. Without a secret they follow from the name
/// alone, and anybody can compute them.
///
/// HMAC-SHA256 (RFC 2104) with the secret as key over purpose and name; purposes must not contain one another, which the zero byte between
/// the two ensures for those without one.
pub fn derived(secret: Option<&ClusterSecret>, cluster: &ClusterName, purpose: &str) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(&[], |secret| secret.expose()));
    let mut context = hmac::Context::with_key(&key);
    context.update(purpose.as_bytes());
    context.update(&[0]);
    context.update(cluster.as_str().as_bytes());
    let tag = context.sign();
    std::array::from_fn(|index| tag.as_ref()[index])
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRandomness;

impl std::fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the system gives no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

/// Fills bytes from the generator of the system.
///
/// # Errors
///
/// [`NoRandomness`]; the bytes must not be used then.
pub fn system_random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_values_differ_by_secret_cluster_and_purpose() {
        let (red, blue): (ClusterName, ClusterName) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let (one, two) = (ClusterSecret::from_bytes([1; 32]), ClusterSecret::from_bytes([2; 32]));
        let values = [
            derived(Some(&one), &red, "digest"),
            derived(Some(&one), &red, "mdns"),
            derived(Some(&one), &blue, "digest"),
            derived(Some(&two), &red, "digest"),
            derived(None, &red, "digest"),
        ];
        for (index, value) in values.iter().enumerate() {
            assert!(!values[..index].contains(value));
        }
    }
}
