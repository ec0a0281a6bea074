//! Certificates of a server: signed by an authority that is made for it alone, so nobody trusts them who was not told to.

use super::folder::{Account, Folder};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Names by which the server may be reached.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
/// A name by which nobody reaches it.
const ANOTHER_NAME: &str = "another.example";

/// What a server's certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// It is for this server, and valid.
    Good,
    /// It was valid once.
    Expired,
    /// It is for a server of another name.
    OfAnotherName,
}

/// Files in the server's folder, in PEM.
pub struct Tls {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    /// The certificate of the authority, which clients trust.
    pub authority: PathBuf,
    /// The certificate of the server.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Tls {
    /// Makes them, for a server that runs as this account.
    pub fn make(folder: &Folder, account: &Account) -> Tls {
        let issuer = Arc::new(issuer("authority of a test").expect("an authority can be made"));
        Tls::issued(issuer, folder, account)
    }

    /// Makes those of another server, signed by the same authority.
    pub fn sibling(&self, folder: &Folder, account: &Account) -> Tls {
        Tls::issued(self.issuer.clone(), folder, account)
    }

    fn issued(
        issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
        folder: &Folder,
        account: &Account,
    ) -> Tls {
        let authority = folder.write("authority.pem", &issuer.pem(), &Account::Ours);
        let [certificate, key] = written(&issuer, Certificate::Good, folder, account);
        Tls { issuer, authority, certificate, key }
    }

    /// Writes another certificate and its key in place of those that are there. A server reads them when it is started.
    pub fn replace(&self, with: Certificate, folder: &Folder, account: &Account) {
        written(&self.issuer, with, folder, account);
    }
}

/// The certificate of an authority that signed nobody's, in PEM.
///
/// # Panics
/// When it cannot be made.
pub fn another_authority() -> String {
    issuer("another authority of a test").expect("an authority can be made").pem()
}

fn written(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    what: Certificate,
    folder: &Folder,
    account: &Account,
) -> [PathBuf; 2] {
    let (certificate, key) = pems(issuer, what).expect("certificates can be made");
    [folder.write("certificate.pem", &certificate, account), folder.write("key.pem", &key, account)]
}

fn issuer(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(limited(params), KeyPair::generate()?)
}

fn pems(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    what: Certificate,
) -> Result<(String, String), rcgen::Error> {
    let names = match what {
        Certificate::Good | Certificate::Expired => NAMES.map(str::to_owned).to_vec(),
        Certificate::OfAnotherName => vec![ANOTHER_NAME.to_owned()],
    };
    let mut params = limited(CertificateParams::new(names)?);
    if what == Certificate::Expired {
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    params.distinguished_name.push(DnType::CommonName, "server of a test");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Valid in any year in which a test may run.
fn limited(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}
