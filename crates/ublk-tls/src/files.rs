//! Certificates and keys in a folder, with the names that libnbd, nbdkit and GnuTLS's tools use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::TlsError;

/// A certificate with those of the authorities between, and the key.
pub(super) type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The authorities of `ca-cert.pem`.
pub(super) fn authorities(folder: &Path) -> Result<RootCertStore, TlsError> {
    let path = folder.join("ca-cert.pem");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path)? {
        roots.add(certificate).map_err(|error| wrong(&path, &error))?;
    }
    Ok(roots)
}

/// `ROLE-cert.pem` and `ROLE-key.pem`; none where both are missing.
pub(super) fn pair(folder: &Path, role: &str) -> Result<Option<Pair>, TlsError> {
    let [certificate, key] = ["cert", "key"].map(|what| folder.join(format!("{role}-{what}.pem")));
    let exists = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    if !exists(&certificate) && !exists(&key) {
        return Ok(None);
    }
    let chain = certificates(&certificate)?;
    Ok(Some((chain, private_key(&key)?)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(path, &"the file has no certificate in PEM format")),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = Zeroizing::new(read(path)?);
    let mode = fs::metadata(path).map_err(|error| wrong(path, &error))?.mode();
    if mode & 0o007 != 0 {
        let message = format!("{}: every user of this machine may read the key", path.display());
        return Err(TlsError::File { message, hint: "`chmod o= FILE` withdraws the permission" });
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| wrong(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error: io::Error| wrong(path, &error))
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::File {
        message: format!("{}: {why}", path.display()),
        hint: "the folder needs ca-cert.pem, and for a server server-cert.pem and server-key.pem; for a \
               client, client-cert.pem and client-key.pem if the server asks for a certificate",
    }
}
