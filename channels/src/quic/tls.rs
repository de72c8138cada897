//! TLS 1.3 with raw public keys both ways (RFC 7250), and the protocol name that keeps clusters apart.
//!
//! All use of rustls stands here. A peer is its ed25519 key: no certificate, so no expiry, no clock and no ASN.1 beyond one fixed
//! prefix. There is no server name on the wire, no 0-RTT (it can be replayed), no ticket and no resumption (they outlive a revocation).
//!
//! The protocol name (ALPN) is `meshwork/1/` and sixteen hexadecimal digits that depend on the cluster's name and secret, so that a
//! stranger to the cluster fails in the handshake. It is visible on the path and proves nothing; the admission that follows does.

use std::fmt;
use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::key::{NodeKey, NodeKeyError};
use crate::identity::{ClusterName, ClusterSecret, PeerId};

/// What precedes the 32 bytes of an ed25519 key in its one canonical encoding (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Never sent, since the server name extension is off; rustls only wants some valid name.
const UNSENT_SERVER_NAME: &str = "peer.invalid";

/// The TLS alerts that mean something to us (RFC 8446, section 6.2).
pub(super) mod alert {
    pub(crate) const HANDSHAKE_FAILURE: u8 = 40;
    pub(crate) const BAD_CERTIFICATE: u8 = 42;
    pub(crate) const UNSUPPORTED_CERTIFICATE: u8 = 43;
    pub(crate) const DECRYPT_ERROR: u8 = 51;
    pub(crate) const CERTIFICATE_REQUIRED: u8 = 116;
    pub(crate) const NO_APPLICATION_PROTOCOL: u8 = 120;
}

/// The name of the wire generation in the protocol name; it changes when nodes of two generations could not even say hello.
const GENERATION: &str = "meshwork/1/";

/// The protocol name of a cluster under one secret; without a secret, of its name alone.
pub(super) fn protocol_name(cluster: &ClusterName, secret: Option<&ClusterSecret>) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.map_or(&[], |secret| secret.expose()));
    let mut context = hmac::Context::with_key(&key);
    context.update(b"alpn");
    context.update(cluster.as_str().as_bytes());
    let tag = context.sign();
    let mut name = GENERATION.to_owned();
    for byte in &tag.as_ref()[..8] {
        name.push_str(&format!("{byte:02x}"));
    }
    name.into_bytes()
}

/// What the dialer's verifier found, for a typed failure: rustls itself passes on only an alert.
///
/// It is set only after the signature was checked, so a name in it is a key that the other side really holds.
pub(super) type Verdict = Arc<OnceLock<Unwanted>>;

/// Why a dialer does not want the peer that it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// It is this very node.
    Myself,
    /// It is another than the expected one.
    NotExpected(PeerId),
}

/// Everything that the handshakes of one endpoint share.
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    key: Arc<OwnKey>,
    own: PeerId,
    /// One protocol name for each secret, the primary first; the position is the position of the secret.
    protocols: Vec<Vec<u8>>,
}

impl Tls {
    pub(super) fn new(key: &NodeKey, protocols: Vec<Vec<u8>>) -> Result<Self, NodeKeyError> {
        let provider = Arc::new(provider());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose_pkcs8().to_vec()));
        let signer = provider.key_provider.load_private_key(der).map_err(|_| NodeKeyError::NotAKey)?;
        let own = key.peer_id();
        let spki = CertificateDer::from([&SPKI_PREFIX[..], own.as_bytes()].concat());
        let key = Arc::new(OwnKey(Arc::new(CertifiedKey::new(vec![spki], signer))));
        Ok(Tls { provider, key, own, protocols })
    }

    /// How we answer handshakes: any well-formed key may knock; admission decides.
    pub(super) fn server(&self) -> QuicServerConfig {
        let verifier = Arc::new(AnyDialer { algorithms: self.provider.signature_verification_algorithms });
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.key.clone());
        config.alpn_protocols = self.protocols.clone();
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        QuicServerConfig::try_from(config).expect("the provider has the cipher that QUIC starts with")
    }

    /// How we open one handshake, and where its verdict will stand.
    pub(super) fn client(&self, expected: Option<PeerId>) -> (QuicClientConfig, Verdict) {
        let verdict = Verdict::default();
        let verifier = Arc::new(WantedAcceptor {
            algorithms: self.provider.signature_verification_algorithms,
            own: self.own,
            expected,
            verdict: verdict.clone(),
        });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider speaks TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(self.key.clone());
        config.alpn_protocols = self.protocols.clone();
        config.enable_sni = false;
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        (QuicClientConfig::try_from(config).expect("the provider has the cipher that QUIC starts with"), verdict)
    }

    /// The name to hand to quinn, which wants one.
    pub(super) fn server_name(&self) -> &'static str {
        UNSENT_SERVER_NAME
    }

    /// Which of our secrets the handshake chose by its protocol name.
    pub(super) fn chosen(&self, connection: &quinn::Connection) -> Option<usize> {
        let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
        let chosen = data.protocol?;
        self.protocols.iter().position(|offered| *offered == chosen)
    }
}

/// Whose key stands at the other end of an established connection.
pub(super) fn peer_of(connection: &quinn::Connection) -> Option<PeerId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match identity.as_slice() {
        [key] => peer_from_spki(key),
        _ => None,
    }
}

/// Reads exactly one encoding of an ed25519 key and nothing else.
fn peer_from_spki(spki: &[u8]) -> Option<PeerId> {
    Some(PeerId::from_bytes(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?))
}

/// ring, with nothing that we do not use: one key exchange, one signature. Of the ciphers the one with SHA-256 goes first, for processors hash that in hardware and SHA-384 rarely, and a
/// handshake derives dozens of keys; it is as strong as the key exchange.
fn provider() -> CryptoProvider {
    use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let ring = rustls::crypto::ring::default_provider();
    CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256],
        kx_groups: vec![rustls::crypto::ring::kx_group::X25519],
        ..ring
    }
}

/// One well-formed raw key, no chain.
fn check_form(key: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    if !intermediates.is_empty() {
        return Err(CertificateError::BadEncoding.into());
    }
    peer_from_spki(key).ok_or_else(|| CertificateError::BadEncoding.into())
}

fn check_signature(
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    // What was not offered is not accepted, whatever the library could verify.
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(CertificateError::BadEncoding.into());
    }
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signature, algorithms)
}

/// The acceptor's view of a dialer: any ed25519 key whose private half it holds.
#[derive(Debug)]
struct AnyDialer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyDialer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_form(key, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(message, key, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The dialer's view of an acceptor: an ed25519 key that is not our own and, when one is expected, that one.
///
/// Whoever is not wanted never sees our key: the handshake ends before we would send it.
#[derive(Debug)]
struct WantedAcceptor {
    algorithms: WebPkiSupportedAlgorithms,
    own: PeerId,
    expected: Option<PeerId>,
    verdict: Verdict,
}

impl ServerCertVerifier for WantedAcceptor {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_form(key, intermediates).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = check_signature(message, key, signature, &self.algorithms)?;
        let peer = check_form(key, &[])?;
        let unwanted = if peer == self.own {
            Unwanted::Myself
        } else if self.expected.is_some_and(|expected| expected != peer) {
            Unwanted::NotExpected(peer)
        } else {
            return Ok(valid);
        };
        // A verifier serves one handshake, so nothing was set before.
        let _ = self.verdict.set(unwanted);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Our raw public key, for both sides of a handshake.
struct OwnKey(Arc<CertifiedKey>);

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnKey(***)")
    }
}

impl ResolvesServerCert for OwnKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

impl ResolvesClientCert for OwnKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_names_keep_clusters_apart() {
        let (red, blue) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let secret = ClusterSecret::from_bytes([7; 32]);
        let names = [
            protocol_name(&red, Some(&secret)),
            protocol_name(&blue, Some(&secret)),
            protocol_name(&red, Some(&ClusterSecret::from_bytes([8; 32]))),
            protocol_name(&red, None),
        ];
        for (index, name) in names.iter().enumerate() {
            assert_eq!(name.len(), GENERATION.len() + 16);
            assert!(names[..index].iter().all(|other| other != name));
        }
    }

    #[test]
    fn the_protocol_name_is_stable() {
        // Recorded: a change of these digits parts the nodes of two versions.
        let name = protocol_name(&"my-cluster".parse().unwrap(), Some(&ClusterSecret::from_bytes([7; 32])));
        assert_eq!(String::from_utf8(name).unwrap(), "meshwork/1/dac2e789ba143b1c");
    }

    #[test]
    fn one_encoding_of_a_key() {
        let spki = [&SPKI_PREFIX[..], &[9; 32]].concat();
        assert_eq!(peer_from_spki(&spki), Some(PeerId::from_bytes([9; 32])));
        assert_eq!(peer_from_spki(&spki[..43]), None);
        assert_eq!(peer_from_spki(&[&spki[..], &[0]].concat()), None);
        let mut other = spki.clone();
        other[8] = 0x71;
        assert_eq!(peer_from_spki(&other), None);
        let key = CertificateDer::from(spki);
        assert!(check_form(&key, &[]).is_ok());
        assert!(check_form(&key, std::slice::from_ref(&key)).is_err());
    }
}
