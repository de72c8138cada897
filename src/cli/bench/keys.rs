//! TLS for the baselines: raw ed25519 keys as Meshwork uses them, so that a handshake costs the same; the server alone shows one.

use std::sync::Arc;

use meshwork_channels::quic::NodeKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, ServerConfig, SignatureScheme};

use crate::cli::Failure;

/// What precedes the 32 bytes of an ed25519 key in its one canonical encoding (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The name that TLS wants; nobody looks at it.
pub(super) const NAME: &str = "peer.invalid";

/// Both sides of a handshake, with a key that was made for it.
pub(super) fn configs() -> Result<(ServerConfig, ClientConfig), Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::new(format!("no keys for the baseline: {what}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = NodeKey::generate().map_err(|error| failed(&error))?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.expose_pkcs8().to_vec()));
    let signer = provider.key_provider.load_private_key(der).map_err(|error| failed(&error))?;
    let public = CertificateDer::from([&SPKI_PREFIX[..], key.peer_id().as_bytes()].concat());
    let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(CertifiedKey::new(vec![public.clone()], signer)));
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| failed(&error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let verifier = Pinned { public, algorithms: algorithms(&provider) };
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    client.enable_sni = false;
    Ok((server, client))
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

/// Accepts the one key that was just made.
#[derive(Debug)]
struct Pinned {
    public: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *key == self.public { Ok(ServerCertVerified::assertion()) } else { Err(Error::General("another key".into())) }
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
        verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.as_ref()), signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
