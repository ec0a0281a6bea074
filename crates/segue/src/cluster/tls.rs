//! What it means when TLS does not come about: the drivers hand on what rustls says, each in its own wrapping, and it says it tersely.

use std::path::Path;

/// How a server that was to be spoken to by TLS was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Unknown,
    Expired,
    NotYet,
    OtherName,
    Authority,
    Plain,
    Encrypted,
    Certificate,
}

/// What the words of the drivers contain. The first that fits counts.
const SIGNS: [(&str, Wrong); 14] = [
    ("UnknownIssuer", Wrong::Unknown),
    // An authority of the same name and another key.
    ("BadSignature", Wrong::Unknown),
    ("certificate expired", Wrong::Expired),
    ("certificate: Expired", Wrong::Expired),
    ("not valid yet", Wrong::NotYet),
    ("NotValidYet", Wrong::NotYet),
    ("not valid for name", Wrong::OtherName),
    ("NotValidForName", Wrong::OtherName),
    ("CaUsedAsEndEntity", Wrong::Authority),
    ("InvalidContentType", Wrong::Plain),
    // What PostgreSQL's driver says; and what PostgreSQL does.
    ("does not support TLS", Wrong::Plain),
    ("no encryption", Wrong::Encrypted),
    ("invalid peer certificate", Wrong::Certificate),
    ("BadEncoding", Wrong::Certificate),
];

/// What is wrong with a server of this section of `cluster.toml`, and what to do, where a failure is one of TLS. `ca` is the file of
/// authorities that the section names, if any.
pub fn explain(failure: &str, section: &str, ca: Option<&Path>) -> Option<(String, String)> {
    let (_, wrong) = SIGNS.iter().find(|(sign, _)| failure.contains(sign))?;
    let own = |text: &str| text.to_owned();
    let (what, remedy) = match wrong {
        Wrong::Unknown => (
            "its certificate is signed by an authority that is not trusted here",
            match ca {
                None => format!(
                    "name the PEM file with the authority that signed it: `ca` of {section}; without one, those that this system trusts count"
                ),
                Some(ca) => format!(
                    "{}, which `ca` of {section} names, holds another authority: name the file with the one that signed it",
                    ca.display()
                ),
            },
        ),
        Wrong::Expired => (
            "its certificate has expired",
            own("give the server a new certificate; or set this machine's clock, if it is wrong"),
        ),
        Wrong::NotYet => (
            "its certificate is not valid yet",
            own("set this machine's clock, or the server's where the certificate was made"),
        ),
        Wrong::OtherName => (
            "its certificate is for another name",
            format!(
                "name the host in {section} as the certificate does; or give the server a certificate for the name by which it is reached"
            ),
        ),
        Wrong::Authority => (
            "it shows the certificate of an authority instead of one of its own",
            format!(
                "give the server a certificate that the authority signed, and name the authority with `ca` of {section}"
            ),
        ),
        Wrong::Plain => (
            "it does not speak TLS there",
            format!(
                "name the port at which it does in {section}, or set up TLS on the server (docs/cluster.md says how a server is spoken to without)"
            ),
        ),
        Wrong::Encrypted => (
            "it takes nobody who does not speak TLS",
            format!("add sslmode=require to `url` of {section}"),
        ),
        Wrong::Certificate => (
            "its certificate cannot be believed",
            format!(
                "look at the certificate of the server (openssl s_client -connect HOST:PORT), and at `ca` of {section}"
            ),
        ),
    };
    Some((format!("{what}: {failure}"), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trouble_with_tls_is_not_explained() {
        for text in ["connection refused", "the password has expired", "ExpiredToken", ""] {
            assert_eq!(explain(text, "[redis]", None), None, "{text}");
        }
    }

    #[test]
    fn whether_a_file_is_named_makes_a_difference() {
        let text = "invalid peer certificate: UnknownIssuer";
        let (what, without) = explain(text, "[redis]", None).unwrap();
        assert!(what.contains("not trusted here") && what.ends_with(text), "{what}");
        assert!(without.contains("`ca` of [redis]"), "{without}");
        let (_, with) = explain(text, "[redis]", Some(Path::new("other.pem"))).unwrap();
        assert!(with.starts_with("other.pem"), "{with}");
    }

    #[test]
    fn who_speaks_tls_to_whom_is_told_apart() {
        let told = |text: &str| explain(text, "[postgres]", None).unwrap();
        let (what, remedy) =
            told("no pg_hba.conf entry for host \"10.0.0.1\", user \"a\", no encryption");
        assert!(what.starts_with("it takes nobody who does not speak TLS"), "{what}");
        assert!(remedy.contains("sslmode=require"), "{remedy}");
        for text in ["server does not support TLS", "corrupt message of type InvalidContentType"] {
            assert!(told(text).0.starts_with("it does not speak TLS there"), "{text}");
        }
        let (what, remedy) = told("invalid peer certificate: CaUsedAsEndEntity");
        assert!(what.starts_with("it shows the certificate of an authority"), "{what}");
        assert!(remedy.contains("give the server a certificate"), "{remedy}");
    }
}
