//! What went wrong at an object store, sorted by what a person has to do about it.

use std::error::Error;
use std::io;

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such object.
    Missing,
    /// Who asks is not known, or may not.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// This machine's clock is too far off for the signature.
    Clock,
    /// The address, or an option, is wrong.
    Config,
    /// Its certificate cannot be believed.
    Untrusted,
    /// No answer, or one that says that it cannot now.
    Away,
    /// No room.
    Full,
    /// The object is longer than it may be.
    TooLong,
    /// Anything else.
    Other,
}

impl Trouble {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            Trouble::Missing => {
                "look whether the bucket and prefix, or the folder, are the right ones"
            }
            Trouble::Denied => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or [objects] in segue.toml), and that they may list, read and write there"
            }
            Trouble::NoBucket => "make the bucket first, or name another one; Segue makes none",
            Trouble::Clock => {
                "set this machine's clock (it is more than minutes off), and try again"
            }
            Trouble::Untrusted => {
                "nothing was sent: name the authority that signed its certificate with AWS_CA_BUNDLE (or `ca` of [objects]), and the host as the certificate does"
            }
            Trouble::Config => "docs/backup.md says how a place is named",
            Trouble::Away => "nothing is lost: try again when the endpoint can be reached",
            Trouble::Full => "make room there, and try again",
            Trouble::TooLong | Trouble::Other => "docs/backup.md says what is expected there",
        }
    }
}

/// Why an object store did not do what it was asked. Never holds a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct ObjectError {
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// Which place or object.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

/// Longest account of an error that is passed on.
const WHAT_MAX: usize = 600;

impl ObjectError {
    /// Trouble of this kind at a place or an object.
    pub fn new(trouble: Trouble, at: impl Into<String>, what: impl Into<String>) -> ObjectError {
        ObjectError { trouble, at: at.into(), what: what.into() }
    }

    pub(super) fn of(at: &str, error: &object_store::Error) -> ObjectError {
        let (story, io) = story(error);
        let trouble = classify(error, &story, io);
        let what = match trouble {
            Trouble::Missing => "there is no such object".to_owned(),
            Trouble::NoBucket => "there is no such bucket".to_owned(),
            _ => shorten(&story),
        };
        ObjectError { trouble, at: at.to_owned(), what }
    }
}

/// Everything that the error and its causes say, each once, and the kind of the system's error below them.
fn story(error: &object_store::Error) -> (String, Option<io::ErrorKind>) {
    let (mut parts, mut kind): (Vec<String>, _) = (vec![error.to_string()], None);
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        cause = error.source();
    }
    (parts.join(": "), kind)
}

fn classify(error: &object_store::Error, story: &str, io: Option<io::ErrorKind>) -> Trouble {
    // The codes of <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, which stand in the answer's body.
    let says = |code: &str| story.contains(code);
    if says("NoSuchBucket") {
        return Trouble::NoBucket;
    }
    if says("RequestTimeTooSkewed") || says("RequestExpired") {
        return Trouble::Clock;
    }
    if says("invalid peer certificate") {
        return Trouble::Untrusted;
    }
    let denied = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"];
    if denied.iter().any(|code| says(code)) || says("403 Forbidden") {
        return Trouble::Denied;
    }
    match io {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => return Trouble::Full,
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            return Trouble::Denied;
        }
        _ => {}
    }
    match error {
        object_store::Error::NotFound { .. } => Trouble::Missing,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => Trouble::Denied,
        object_store::Error::InvalidPath { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => Trouble::Config,
        object_store::Error::Generic { store: "S3", .. } => Trouble::Away,
        _ => Trouble::Other,
    }
}

fn shorten(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(WHAT_MAX) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Trouble {
        let source = text.to_owned().into();
        ObjectError::of("here", &object_store::Error::Generic { store: "S3", source }).trouble
    }

    #[test]
    fn answers_are_sorted_by_what_to_do() {
        let body = |code: &str| format!("status 403: <Error><Code>{code}</Code></Error>");
        assert_eq!(told(&body("RequestTimeTooSkewed")), Trouble::Clock);
        assert_eq!(told(&body("SignatureDoesNotMatch")), Trouble::Denied);
        assert_eq!(told(&body("InvalidAccessKeyId")), Trouble::Denied);
        assert_eq!(told(&body("NoSuchBucket")), Trouble::NoBucket);
        assert_eq!(told("error sending request: connection refused"), Trouble::Away);
        assert_eq!(told("invalid peer certificate: UnknownIssuer"), Trouble::Untrusted);
        let full = object_store::Error::Generic {
            store: "LocalFileSystem",
            source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
        };
        assert_eq!(ObjectError::of("here", &full).trouble, Trouble::Full);
    }

    #[test]
    fn a_long_account_is_shortened() {
        let source = "ä".repeat(5_000).into();
        let error = ObjectError::of("here", &object_store::Error::Generic { store: "S3", source });
        assert!(error.what.chars().count() <= WHAT_MAX + 3, "{}", error.what.len());
    }
}
