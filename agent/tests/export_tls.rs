// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exporting to a collector behind TLS, over every transport.
//!
//! In: certificates made for the occasion. Out: whether a real TLS server and the exporter come together, and what the
//! exporter says where they must not. The receiver behind the server speaks plain text.

#![expect(clippy::unwrap_used, reason = "a test's helper may panic as its test may")]

#[path = "support/receiver.rs"]
#[expect(dead_code, reason = "shared with tests that look closer")]
mod receiver;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use spantap::{
    attribute::Attribute,
    config::{Destination, Protocol, Tls},
    context::{SpanId, TraceFlags, TraceId},
    enrich::{Resource, ServiceSpan},
    export::{ExportStats, Exporter, Limits},
    process::ProcessId,
    time::{Task, Timestamp, WallOffset},
    trace::{Begun, Span, SpanKind},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_rustls::TlsAcceptor;

use receiver::{PATIENCE, Receiver, Transport};

const ALL: [(Transport, Protocol); 3] = [
    (Transport::Grpc, Protocol::Grpc),
    (Transport::Http, Protocol::HttpProtobuf),
    (Transport::HttpJson, Protocol::HttpJson),
];

#[tokio::test]
async fn a_private_authority_is_trusted_when_its_certificate_is_named() {
    let pki = Pki::new();
    for (transport, protocol) in ALL {
        let (receiver, address) = pki.serve(transport, Clients::Anyone).await;
        let named = Tls { certificate: Some(pki.authority.clone()), ..Tls::default() };
        assert_eq!(export(address, protocol, named).await.exported, 1, "{transport:?}");
        assert_eq!(receiver.received().len(), 1, "{transport:?}");

        let refused = export(address, protocol, Tls::default()).await;
        assert_eq!(refused.failed, 1, "{transport:?}: the public web does not know this authority");
        let why = refused.last_error.unwrap_or_default();
        assert!(why.contains("UnknownIssuer"), "{transport:?}: {why}");
    }
}

#[tokio::test]
async fn a_collector_that_asks_who_calls_is_told() {
    let pki = Pki::new();
    for (transport, protocol) in ALL {
        let (receiver, address) = pki.serve(transport, Clients::Known).await;
        let nobody = Tls { certificate: Some(pki.authority.clone()), ..Tls::default() };
        assert_eq!(export(address, protocol, nobody.clone()).await.failed, 1, "{transport:?}: nobody in particular");
        assert_eq!(receiver.received().len(), 0, "{transport:?}");

        let known =
            Tls { client_certificate: Some(pki.client.clone()), client_key: Some(pki.client_key.clone()), ..nobody };
        assert_eq!(export(address, protocol, known).await.exported, 1, "{transport:?}");
    }
}

#[tokio::test]
async fn files_that_cannot_work_are_refused_at_the_start_in_words() {
    let pki = Pki::new();
    let key = || Some(pki.client_key.clone());
    let cases = [
        (Tls { certificate: Some("/nowhere/ca.pem".into()), ..Tls::default() }, "read /nowhere/ca.pem"),
        (Tls { certificate: key(), ..Tls::default() }, "holds no certificate"),
        (Tls { client_certificate: Some(pki.client.clone()), ..Tls::default() }, "without its key"),
        (Tls { client_key: key(), ..Tls::default() }, "without its certificate"),
        (
            Tls {
                client_certificate: Some(pki.client.clone()),
                client_key: Some(pki.client.clone()),
                ..Tls::default()
            },
            "holds no private key",
        ),
        (
            Tls { client_certificate: Some(pki.authority.clone()), client_key: key(), ..Tls::default() },
            "does not go with its key",
        ),
    ];
    for (tls, words) in cases {
        for (_, protocol) in ALL {
            let to = Destination { tls: tls.clone(), ..Destination::new("https://localhost:1", protocol) };
            let error = Exporter::start(&to, &Handle::current()).expect_err("it cannot work");
            let said = format!("{error:#}");
            assert!(said.contains(words), "{protocol:?}: {said}, not {words}");
            assert!(!said.contains("BEGIN"), "{protocol:?}: a key is in {said}");
        }
    }
}

/// One span sent to `address`.
async fn export(address: SocketAddr, protocol: Protocol, tls: Tls) -> ExportStats {
    let path = if protocol == Protocol::Grpc { "" } else { "/v1/traces" };
    let endpoint = format!("https://localhost:{}{path}", address.port());
    let timeout = std::time::Duration::from_secs(2);
    let to = Destination { tls, timeout, ..Destination::new(endpoint, protocol) };
    let exporter = Exporter::start_with(&to, Limits::default(), &Handle::current()).unwrap();
    exporter.offer(vec![span()], WallOffset(0));
    exporter.flush(Instant::now() + PATIENCE).await;
    exporter.stats()
}

/// Who may speak to a server.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Clients {
    Anyone,
    Known,
}

/// An authority, and what it has signed.
struct Pki {
    _folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    authority: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut params = CertificateParams::new(vec!["agent".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let client = params.signed_by(&key, &issuer).unwrap();
        Self {
            authority: write("ca.pem", issuer.pem()),
            client: write("client.pem", client.pem()),
            client_key: write("client.key", key.serialize_pem()),
            issuer,
            _folder: folder,
        }
    }

    /// A receiver, and the address of the TLS server in front of it.
    async fn serve(&self, transport: Transport, clients: Clients) -> (Receiver, SocketAddr) {
        let receiver = Receiver::start(transport).await.unwrap();
        let behind: SocketAddr =
            receiver.endpoint().trim_start_matches("http://").trim_end_matches("/v1/traces").parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = match clients {
            Clients::Anyone => config.unwrap().with_no_client_auth(),
            Clients::Known => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                config.unwrap().with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        // gRPC clients insist on HTTP/2.
        config.alpn_protocols = if transport == Transport::Grpc { vec![b"h2".to_vec()] } else { Vec::new() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that is turned away, or turns away, ends its connection only.
                    let Ok(mut secure) = acceptor.accept(stream).await else { return };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    copy_bidirectional(&mut secure, &mut plain).await.ok();
                });
            }
        });
        (receiver, address)
    }
}

fn span() -> ServiceSpan {
    let resource = Resource {
        process: ProcessId { pid: 1000, started: 1 },
        service: "service".into(),
        instrumented: false,
        attributes: vec![Attribute::new("service.name", "service")],
    };
    let span = Span {
        trace: TraceId([1; 16]),
        id: SpanId([2; 8]),
        parent: None,
        flags: TraceFlags(3),
        state: None,
        kind: SpanKind::Server,
        name: "GET".into(),
        protocol: "http",
        begun: Begun::Elsewhere,
        start: Timestamp(1),
        answered: None,
        end: Timestamp(2),
        failed: false,
        attributes: Vec::new(),
        links: Vec::new(),
        task: Task::default(),
        port: 0,
    };
    ServiceSpan { span, resource: Arc::new(resource), target: None }
}
