//! Certificates of a server: signed by an authority that is made for it alone, so nobody trusts them who was not told to.

use super::folder::{Account, Folder};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use std::path::PathBuf;

/// Names by which the server may be reached.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// Files in the server's folder, in PEM.
pub struct Tls {
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
        let (authority, certificate, key) = pems().expect("certificates can be made");
        Tls {
            authority: folder.write("authority.pem", &authority, &Account::Ours),
            certificate: folder.write("certificate.pem", &certificate, account),
            key: folder.write("key.pem", &key, account),
        }
    }
}

fn pems() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(limited(params), KeyPair::generate()?)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "server of a test");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = limited(params).signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}

/// Valid in any year in which a test may run.
fn limited(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}
