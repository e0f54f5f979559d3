// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whom the exporter trusts, and as whom it presents itself.
//!
//! In: paths of PEM files. Out: TLS settings for either transport, or the file that is wrong and why. It makes no
//! connection, and a key's content appears in no message.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#configuration-options>

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::Tls;

/// For HTTP.
pub(super) fn http(tls: &Tls) -> anyhow::Result<ClientConfig> {
    // The provider is named here, as rustls only guesses one where exactly one is compiled in.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("set up TLS")?
        .with_root_certificates(roots(tls.certificate.as_deref())?);
    Ok(match identity(tls)? {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let parsed = PrivateKeyDer::from_pem_slice(&read(key)?);
            let parsed = parsed.with_context(|| format!("{} holds no private key in PEM", key.display()))?;
            config.with_client_auth_cert(chain, parsed).context("the client certificate does not go with its key")?
        }
    })
}

/// For gRPC.
pub(super) fn grpc(tls: &Tls) -> anyhow::Result<ClientTlsConfig> {
    // Whatever is wrong with a file is found and told in the same words as for HTTP.
    http(tls)?;
    let mut config = ClientTlsConfig::new();
    config = match tls.certificate.as_deref() {
        Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
        None => config.with_webpki_roots(),
    };
    if let Some((certificate, key)) = identity(tls)? {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

/// "The trusted certificate to use when verifying a server's TLS credentials": instead of those of the public web.
fn roots(certificate: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let Some(path) = certificate else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| format!("{} has a certificate that is none", path.display()))?;
    }
    Ok(roots)
}

/// "Client certificate/chain trust for clients private key to use in mTLS communication": one is nothing without the
/// other.
fn identity(tls: &Tls) -> anyhow::Result<Option<(&Path, &Path)>> {
    match (tls.client_certificate.as_deref(), tls.client_key.as_deref()) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(_), None) => bail!("there is a client certificate without its key: set OTEL_EXPORTER_OTLP_CLIENT_KEY"),
        (None, Some(_)) => {
            bail!("there is a client key without its certificate: set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
        }
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let chain = chain.with_context(|| format!("{} is not PEM", path.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate in PEM", path.display());
    }
    Ok(chain)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
