//! TLS as the hub serves it: rustls, with certificates that are exchanged while it runs.

use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use crate::{config::Tls, hangup::Hangups};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {why}", file.display())]
    Content {
        /// Which.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// The library refuses.
    #[error("TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Certificate and key in use; the newest good ones that the files held.
#[derive(Debug)]
pub struct Certificates {
    settings: Tls,
    current: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
}

/// What tells that the files were changed: time and length of each.
type Stamp = [(SystemTime, u64); 2];

impl Certificates {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`TlsError`] when one of them cannot be used, or they do not belong together.
    pub fn load(settings: &Tls) -> Result<Arc<Self>, TlsError> {
        let current = read(settings)?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            current: RwLock::new(current),
        }))
    }

    /// What a listener accepts TLS connections with. It follows every exchange of the files.
    ///
    /// # Errors
    /// [`TlsError::Rustls`] when the library refuses.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Devices that come back in a stampede resume without the costly half of the handshake, and without our keeping
        // anything of them.
        config.ticketer = Ticketer::new()?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again if they changed. What cannot be used is left alone, and the former stays in use.
    ///
    /// # Errors
    /// [`TlsError`] why the new files are not used.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).stamp;
        if stamp(&self.settings)? == known {
            return Ok(false);
        }
        let new = read(&self.settings)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    /// Follows the files, by looking at them now and then and at once on SIGHUP, for as long as it is polled.
    pub async fn follow(self: Arc<Self>, mut hangups: Hangups) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = hangups.next() => {}
            }
            let this = Arc::clone(&self);
            let Ok(reloaded) = tokio::task::spawn_blocking(move || this.reload()).await else {
                continue;
            };
            match reloaded {
                Ok(true) => tracing::info!(cert = %self.settings.cert.display(), "certificate exchanged"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the new certificate cannot be used: the former stays in use"),
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.key))
    }
}

fn read(settings: &Tls) -> Result<Current, TlsError> {
    // First, so that a change while we read is seen next time.
    let stamp = stamp(settings)?;
    let chain = read_chain(&settings.cert)?;
    let key = read_key(&settings.key)?;
    let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| TlsError::Content {
        file: settings.key.clone(),
        why: match error {
            rustls::Error::InconsistentKeys(_) => {
                format!(
                    "this key does not belong to the certificate in {}",
                    settings.cert.display()
                )
            }
            other => other.to_string(),
        },
    })?;
    Ok(Current {
        key: Arc::new(key),
        stamp,
    })
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_file(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(no(file, &"no certificate in PEM form in it")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(no(file, &error)),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = zeroize::Zeroizing::new(read_file(file)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => no(file, &"no private key in PEM form in it"),
        other => no(file, &other),
    })
}

fn no(file: &Path, why: &dyn Display) -> TlsError {
    TlsError::Content {
        file: file.to_owned(),
        why: why.to_string(),
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Read {
        file: file.to_owned(),
        error,
    })
}

/// Follows symbolic links, because that is how orchestrators exchange files.
fn stamp(settings: &Tls) -> Result<Stamp, TlsError> {
    let of = |file: &Path| {
        let read = || {
            let meta = fs::metadata(file)?;
            Ok((meta.modified()?, meta.len()))
        };
        read().map_err(|error| TlsError::Read {
            file: file.to_owned(),
            error,
        })
    };
    Ok([of(&settings.cert)?, of(&settings.key)?])
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;

    struct Files {
        dir: TempDir,
        settings: Tls,
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let settings = Tls {
                cert: dir.path().join("cert.pem"),
                key: dir.path().join("key.pem"),
            };
            Self { dir, settings }
        }

        /// Puts a fresh certificate in place, with a time stamp of its own.
        fn exchange(&self, age: u64) -> CertificateDer<'static> {
            let Made { cert, signing_key } = generate_simple_self_signed(vec!["localhost".into()]).expect("made");
            self.put(&self.settings.cert, &cert.pem(), age);
            self.put(&self.settings.key, &signing_key.serialize_pem(), age);
            cert.der().clone()
        }

        fn put(&self, file: &Path, text: &str, age: u64) {
            assert!(file.starts_with(self.dir.path()));
            fs::write(file, text).expect("written");
            let at = SystemTime::now() - Duration::from_secs(age);
            let file = fs::File::options().write(true).open(file).expect("opened");
            file.set_modified(at).expect("dated");
        }
    }

    /// One handshake by a client that trusts only `root`.
    async fn shake(certificates: &Arc<Certificates>, root: &CertificateDer<'static>) -> io::Result<()> {
        let acceptor = certificates.acceptor().expect("acceptor");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await?;
            let mut tls = acceptor.accept(tcp).await?;
            tls.write_all(b"hello").await?;
            tls.shutdown().await
        });
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = connector.connect(name, TcpStream::connect(address).await?).await?;
        let mut said = Vec::new();
        tls.read_to_end(&mut said).await?;
        assert_eq!(said, b"hello");
        server.await.expect("joined")
    }

    #[tokio::test]
    async fn a_client_that_trusts_the_certificate_is_served() {
        let files = Files::new();
        let root = files.exchange(60);
        let certificates = Certificates::load(&files.settings).expect("loaded");
        shake(&certificates, &root).await.expect("served");
        assert!(!certificates.reload().expect("unchanged"));
    }

    #[tokio::test]
    async fn an_exchanged_certificate_is_served_without_a_restart() {
        let files = Files::new();
        let old = files.exchange(60);
        let certificates = Certificates::load(&files.settings).expect("loaded");
        let new = files.exchange(30);
        shake(&certificates, &old).await.expect("the former until then");
        assert!(certificates.reload().expect("changed"));
        shake(&certificates, &new).await.expect("the new one from then on");
        assert!(shake(&certificates, &old).await.is_err(), "and no longer the former");
    }

    #[tokio::test]
    async fn files_that_cannot_be_used_leave_the_former_in_use() {
        let files = Files::new();
        let root = files.exchange(60);
        let certificates = Certificates::load(&files.settings).expect("loaded");
        files.put(&files.settings.cert, "half a certif", 30);
        let error = certificates.reload().expect_err("no certificate");
        assert!(
            error
                .to_string()
                .ends_with("cert.pem: no certificate in PEM form in it"),
            "{error}"
        );
        shake(&certificates, &root).await.expect("served");
        fs::remove_file(&files.settings.key).expect("removed");
        assert!(matches!(certificates.reload(), Err(TlsError::Read { .. })));
        shake(&certificates, &root).await.expect("served");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_named() {
        let files = Files::new();
        files.exchange(60);
        let other = generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        files.put(&files.settings.key, &other.signing_key.serialize_pem(), 60);
        let error = Certificates::load(&files.settings).expect_err("refused").to_string();
        assert!(
            error.contains("key.pem: this key does not belong to the certificate in "),
            "{error}"
        );
    }

    #[test]
    fn no_error_shows_the_key() {
        let files = Files::new();
        files.exchange(60);
        files.put(
            &files.settings.key,
            "-----BEGIN PRIVATE KEY-----\ns3cret!\n-----END PRIVATE KEY-----\n",
            60,
        );
        let error = Certificates::load(&files.settings).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
}
