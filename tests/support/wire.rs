//! The handshake and the admission as the documentation of the wire describes them, written a second time by hand.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use meshwork::channels::frame::{self, Decoder, Frame};
use meshwork::channels::quic::{CloseCode, NodeKey};
use meshwork::{ChannelId, PeerId};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, RecvStream};
use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::{CLUSTER, SECRET};

/// The incarnation that every member by hand gives.
pub(crate) const INCARNATION: u64 = 9;

/// The longest hello on a first connection with an IPv4 address in it; one that names a first connection is sixteen bytes longer than the shortest.
const FIRST_HELLO_BYTES_MAX: usize = 4 + 10 + 8 + 32 + 1;

/// A socket with a key, on which a member by hand dials and is dialed.
#[derive(Clone)]
pub(crate) struct Socket {
    pub(crate) quinn: quinn::Endpoint,
    key: NodeKey,
}

impl Socket {
    pub(crate) fn new() -> Self {
        let key = NodeKey::generate().unwrap();
        let mut server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_cert_resolver(Arc::new(Show(key.clone())));
        server.alpn_protocols = vec![alpn()];
        let mut client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(Show(key.clone())));
        client.alpn_protocols = vec![alpn()];
        client.enable_sni = false;
        let mut transport = quinn::TransportConfig::default();
        // The windows of a real node: what a deaf member takes before it stops a sender is part of what is tested.
        transport.stream_receive_window(meshwork::channels::limits::STREAM_WINDOW_BYTES.into());
        transport.receive_window(meshwork::channels::limits::WINDOW_BYTES.into());
        let transport = Arc::new(transport);
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
        server.transport_config(transport.clone());
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
        client.transport_config(transport);
        let mut quinn = quinn::Endpoint::server(server, ([127, 0, 0, 1], 0).into()).unwrap();
        quinn.set_default_client_config(client);
        Socket { quinn, key }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.quinn.local_addr().unwrap()
    }

    /// Dials a node, proves and is admitted.
    pub(crate) async fn dial(&self, address: SocketAddr) -> Option<(Connection, PeerId)> {
        let connection = self.quinn.connect(address, "peer.invalid").ok()?.await.ok()?;
        let (mut send, mut receive) = connection.open_bi().await.ok()?;
        send.write_all(&self.proof(&connection, 1, b"c")?).await.ok()?;
        send.finish().ok()?;
        let welcome = read_frame(&mut receive).await?;
        assert_eq!(welcome.kind, 2);
        let peer = peer_of(&connection)?;
        Some((connection, peer))
    }

    /// Lets the next node in that dials.
    pub(crate) async fn accept(&self) -> Option<(Connection, PeerId)> {
        loop {
            let Ok(connection) = self.quinn.accept().await?.await else { continue };
            let admitted = async {
                let (mut send, mut receive) = connection.accept_bi().await.ok()?;
                let hello = read_frame(&mut receive).await?;
                if hello.body.len() > FIRST_HELLO_BYTES_MAX {
                    // One connection is enough for it: bulk comes over the first.
                    connection.close(CloseCode::Duplicate.number().into(), &[]);
                    return None;
                }
                send.write_all(&self.proof(&connection, 2, b"s")?).await.ok()?;
                send.finish().ok()?;
                peer_of(&connection)
            };
            if let Some(peer) = admitted.await {
                return Some((connection, peer));
            }
        }
    }

    /// A hello (kind 1) or welcome (kind 2).
    fn proof(&self, connection: &Connection, kind: u16, side: &[u8]) -> Option<Bytes> {
        let mut ids = [self.peer(), peer_of(connection)?];
        ids.sort();
        let context = [ids[0].as_bytes(), ids[1].as_bytes(), CLUSTER.as_bytes()].concat();
        let mut exporter = [0; 32];
        connection.export_keying_material(&mut exporter, b"EXPORTER-meshwork-member-v1", &context).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.expose());
        // Version 1 to 1; the incarnation; the address 127.0.0.1:7.
        let head = [0, 1, 0, 1, INCARNATION as u8, 0, 127, 0, 0, 1, 7];
        Some(frame::encode(kind, &[&head, hmac::sign(&key, &[side, &exporter].concat()).as_ref(), &[0]].concat()))
    }
}

/// The channel that a stream begins with.
pub(crate) async fn read_preamble(stream: &mut RecvStream) -> Option<ChannelId> {
    // The version, the number of a built-in channel, its lane and the number of the stream, each of which takes one byte.
    let mut preamble = [0; 4];
    stream.read_exact(&mut preamble).await.ok()?;
    Some(ChannelId(preamble[1].into()))
}

/// The code with which the other side closed.
pub(crate) async fn close_code(connection: &Connection) -> u64 {
    match tokio::time::timeout(super::PATIENCE, connection.closed()).await.expect("an end in time") {
        quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("not closed by the node: {other:?}"),
    }
}

async fn read_frame(stream: &mut RecvStream) -> Option<Frame> {
    let mut decoder = Decoder::new(4_096);
    loop {
        decoder.push(stream.read_chunk(4_096, true).await.ok()??.bytes);
        if let Some(frame) = decoder.next().ok()? {
            return Some(frame);
        }
    }
}

fn peer_of(connection: &Connection) -> Option<PeerId> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    // The key is the end of its SubjectPublicKeyInfo.
    Some(PeerId::from_bytes(shown.first()?.last_chunk().copied()?))
}

fn alpn() -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.expose());
    let tag = hmac::sign(&key, format!("alpn{CLUSTER}").as_bytes());
    let hex: String = tag.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("meshwork/1/{hex}").into_bytes()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Shows a raw key.
struct Show(NodeKey);

impl std::fmt::Debug for Show {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Show")
    }
}

impl Show {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let public = [&prefix[..], self.0.peer_id().as_bytes()].concat();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.expose_pkcs8().to_vec()));
        let signer = provider().key_provider.load_private_key(private).unwrap();
        Some(Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signer)))
    }
}

impl rustls::client::ResolvesClientCert for Show {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
    fn only_raw_public_keys(&self) -> bool {
        true
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Show {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
    fn only_raw_public_keys(&self) -> bool {
        true
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
