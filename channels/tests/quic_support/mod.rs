//! Nodes to test with, and strangers: the wire as the module documentation describes it, written a second time by hand.
#![allow(dead_code, reason = "every test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests, though not marked as such")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshwork_channels::frame::{self, Decoder, Frame};
use meshwork_channels::quic::{DialError, Endpoint, EndpointConfig, Event, Events, Link, NodeKey, Refusal};
use meshwork_channels::{ChannelId, ClusterSecret, PeerId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

pub(crate) const CLUSTER: &str = "red";
pub(crate) const SECRET: ClusterSecret = ClusterSecret::from_bytes([7; 32]);
pub(crate) const OTHER_SECRET: ClusterSecret = ClusterSecret::from_bytes([8; 32]);

/// Long enough for a loaded machine; a test that gets here has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const NOT_ADMITTED: u32 = 5;

/// A node on a free loopback port, of [`CLUSTER`] with [`SECRET`] unless changed.
pub(crate) fn config() -> EndpointConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = EndpointConfig::new(listen, NodeKey::generate().unwrap(), CLUSTER.parse().unwrap());
    config.secrets = vec![SECRET];
    config
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Events,
}

impl Node {
    pub(crate) fn new(config: EndpointConfig) -> Self {
        let (endpoint, events) = Endpoint::bind(config).unwrap();
        Node { endpoint, events }
    }

    pub(crate) fn start() -> Self {
        Self::new(config())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_address()
    }

    pub(crate) fn id(&self) -> PeerId {
        self.endpoint.peer_id()
    }

    pub(crate) async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time");
        event.expect("the endpoint lives")
    }

    pub(crate) async fn connected(&mut self) -> Link {
        match self.next().await {
            Event::Connected(link) => link,
            other => panic!("not connected: {other:?}"),
        }
    }

    pub(crate) async fn dial_failed(&mut self) -> DialError {
        match self.next().await {
            Event::DialFailed { error, .. } => error,
            other => panic!("no failed dial: {other:?}"),
        }
    }

    pub(crate) async fn refused(&mut self) -> Refusal {
        match self.next().await {
            Event::Refused { reason, .. } => reason,
            other => panic!("nobody refused: {other:?}"),
        }
    }

    pub(crate) async fn frame(&mut self) -> (ChannelId, Frame) {
        match self.next().await {
            Event::Frame { channel, frame, .. } => (channel, frame),
            other => panic!("no frame: {other:?}"),
        }
    }
}

/// Two nodes with a link: the link as the first, who dialed, and as the second sees it.
pub(crate) async fn pair() -> (Node, Node, Link, Link) {
    let (mut a, mut b) = (Node::start(), Node::start());
    let (there, back) = join(&mut a, &mut b).await;
    (a, b, there, back)
}

pub(crate) async fn join(a: &mut Node, b: &mut Node) -> (Link, Link) {
    a.endpoint.dial(b.address(), Some(b.id()));
    (a.connected().await, b.connected().await)
}

/// What a stranger shows in the handshake.
#[derive(Clone)]
pub(crate) enum Shown {
    RawKey(NodeKey),
    Certificate,
    Nothing,
}

/// The protocol name as documented.
pub(crate) fn alpn(secret: &ClusterSecret, cluster: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let tag = hmac::sign(&key, format!("alpn{cluster}").as_bytes());
    let hex: String = tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("meshwork/1/{hex}").into_bytes()
}

/// The proof as documented.
pub(crate) fn proof(connection: &quinn::Connection, secret: &ClusterSecret, side: &[u8], cluster: &str, mut ids: [PeerId; 2]) -> [u8; 32] {
    ids.sort();
    let context = [ids[0].as_bytes(), ids[1].as_bytes(), cluster.as_bytes()].concat();
    let mut exporter = [0; 32];
    connection.export_keying_material(&mut exporter, b"EXPORTER-meshwork-member-v1", &context).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    hmac::sign(&key, &[side, &exporter].concat()).as_ref().try_into().unwrap()
}

/// A hello (kind 1) or welcome (kind 2) as documented.
pub(crate) fn hello(kind: u16, versions: [u16; 2], proof: [u8; 32]) -> Bytes {
    hello_of(kind, versions, proof, None)
}

/// One that may name the connection of which this one is the second.
pub(crate) fn hello_of(kind: u16, versions: [u16; 2], proof: [u8; 32], attach: Option<[u8; 16]>) -> Bytes {
    let mut body = [versions[0].to_be_bytes(), versions[1].to_be_bytes()].concat();
    // Incarnation 9; the address 127.0.0.1:7.
    body.extend_from_slice(&[9, 0, 127, 0, 0, 1, 7]);
    body.extend_from_slice(&proof);
    body.push(u8::from(attach.is_some()));
    body.extend_from_slice(attach.as_ref().map_or(&[][..], |tag| tag));
    frame::encode(kind, &body)
}

/// The name of a connection as documented.
pub(crate) fn tag(connection: &quinn::Connection) -> [u8; 16] {
    let mut tag = [0; 16];
    connection.export_keying_material(&mut tag, b"EXPORTER-meshwork-bulk-v1", &[]).unwrap();
    tag
}

/// A stranger's socket.
pub(crate) fn stranger() -> quinn::Endpoint {
    quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap()
}

/// A stranger who can be dialed.
pub(crate) fn trap(shown: &Shown, protocols: Vec<Vec<u8>>) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anybody))
        .with_cert_resolver(Arc::new(Show(shown.clone())));
    tls.alpn_protocols = protocols;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap()
}

/// How a stranger dials.
pub(crate) fn client_config(shown: &Shown, protocols: Vec<Vec<u8>>) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls(shown, protocols)).unwrap()))
}

pub(crate) fn client_tls(shown: &Shown, protocols: Vec<Vec<u8>>) -> rustls::ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(Show(shown.clone())));
    tls.alpn_protocols = protocols;
    tls.enable_sni = false;
    tls
}

/// A stranger's handshake with a node. That it succeeds says nothing yet: the acceptor judges after the dialer.
pub(crate) async fn shake(from: &quinn::Endpoint, shown: &Shown, protocol: Vec<u8>, node: SocketAddr) -> quinn::Connection {
    let config = client_config(shown, vec![protocol]);
    from.connect_with(config, node, "peer.invalid").unwrap().await.unwrap()
}

/// A member who speaks the wire by hand: dials, proves and is admitted.
pub(crate) async fn member(from: &quinn::Endpoint, key: &NodeKey, node: &Node) -> quinn::Connection {
    let connection = shake(from, &Shown::RawKey(key.clone()), alpn(&SECRET, CLUSTER), node.address()).await;
    let proof = proof(&connection, &SECRET, b"c", CLUSTER, [key.peer_id(), node.id()]);
    let answer = say(&connection, &hello(1, [1, 1], proof)).await.unwrap();
    assert_eq!(answer.kind, 2);
    connection
}

/// Says something on a first stream and reads one frame of answer.
pub(crate) async fn say(connection: &quinn::Connection, words: &[u8]) -> Option<Frame> {
    let (mut send, mut receive) = connection.open_bi().await.ok()?;
    send.write_all(words).await.ok()?;
    send.finish().ok()?;
    read_frame(&mut receive).await
}

pub(crate) async fn read_frame(stream: &mut quinn::RecvStream) -> Option<Frame> {
    let mut decoder = Decoder::new(4_096);
    loop {
        decoder.push(stream.read_chunk(4_096, true).await.ok()??.bytes);
        if let Some(frame) = decoder.next().ok()? {
            return Some(frame);
        }
    }
}

/// The code with which the other side closed.
pub(crate) async fn close_code(connection: &quinn::Connection) -> u64 {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.expect("an end in time") {
        quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("not closed by the node: {other:?}"),
    }
}

/// The TLS alert with which the other side refused the handshake.
pub(crate) fn alert(error: &quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ConnectionClosed(closed) => u64::from(closed.error_code) - 0x100,
        other => panic!("no alert: {other:?}"),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Shows what a stranger shows.
struct Show(Shown);

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
}

impl Show {
    fn key(&self) -> Option<Arc<CertifiedKey>> {
        let (public, private) = match &self.0 {
            Shown::RawKey(key) => {
                let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
                ([&prefix[..], key.peer_id().as_bytes()].concat(), key.expose_pkcs8().to_vec())
            }
            Shown::Certificate => (unhex(CERTIFICATE), unhex(CERTIFICATE_KEY)),
            Shown::Nothing => return None,
        };
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(private));
        let signer = provider().key_provider.load_private_key(private).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer)))
    }

    fn raw(&self) -> bool {
        !matches!(self.0, Shown::Certificate)
    }
}

impl rustls::client::ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw()
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Show {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
    fn only_raw_public_keys(&self) -> bool {
        self.raw()
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(&self, _: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A self-signed X.509 certificate over an ed25519 key, and the key: `openssl req -x509 -newkey ed25519 -subj /CN=peer`.
const CERTIFICATE: &str = concat!(
    "308201343081e7a00302010202146dcc9a97a4bd50c0b9721fa0fab0ef17ee234d29300506032b6570300f310d300b06035504030c0470656572",
    "3020170d3236313132323138323630365a180f32313236313032393138323630365a300f310d300b06035504030c0470656572302a300506032b65",
    "70032100",
    "4c20d76d5beadbb5e5803e21d0b695a341e0d788156e7ce859177735c59c243ea3533051301d0603551d0e04160414722df6dd460f41e0fa20b2a8",
    "ff284d318cce0e7d301f0603551d23041830168014722df6dd460f41e0fa20b2a8ff284d318cce0e7d300f0603551d130101ff040530030101ff",
    "300506032b6570034100b218a9714ea68c97b7c4898a0a862a4e0fb0693a4a9d6d96fdce12a9cf4f41cb2bbc6c25a8f142a1041eb005a81e2cc3",
    "9f3bc4268f317dd1a18b581ce9643f01",
);
const CERTIFICATE_KEY: &str = "302e020100300506032b657004220420b954fbc8d07a972e013ae6793dd5d4de9d9d2d826d82f0312a9cd2ba08885fdb";
