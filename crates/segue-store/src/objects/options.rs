//! How an S3 bucket is reached.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever signs with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How an S3 bucket is reached. A folder needs none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The server, such as `https://s3.example.org:9000`; without one, Amazon's of the region.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` where nobody says so.
    pub region: Option<String>,
    /// Who asks.
    pub access_key_id: Option<String>,
    /// With what the requests are signed.
    pub secret_access_key: Option<Secret>,
    /// Belongs to credentials that were lent for a time.
    pub session_token: Option<Secret>,
    /// Whether the bucket stands in the path (as most servers but Amazon's want it) instead of the host's name. Without a word, it
    /// does where there is an endpoint.
    pub path_style: Option<bool>,
    /// A PEM file with the authorities that the server's certificate is checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether to speak without TLS to another machine. To this one it is always allowed.
    pub allow_http: bool,
    /// Whether to ask the machine's metadata service for credentials, where nothing else gives any.
    pub instance_role: bool,
}

/// The variables that tell of credentials which the client fetches by itself: a pod's web identity, a container's role.
const FETCHED: [&str; 3] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

impl Options {
    /// These options, and what they leave open as the variables `AWS_*` of this process say it.
    #[must_use]
    pub fn or_environment(self) -> Options {
        self.or(|name| std::env::var(name).ok().filter(|text| !text.is_empty()))
    }

    fn or(mut self, variable: impl Fn(&str) -> Option<String>) -> Options {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        self.endpoint =
            self.endpoint.or_else(|| first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        self.region = self.region.or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        // A key of one source is not mixed with the secret of another.
        if self.access_key_id.is_none() && self.secret_access_key.is_none() {
            self.access_key_id = first(&["AWS_ACCESS_KEY_ID"]);
            self.secret_access_key = first(&["AWS_SECRET_ACCESS_KEY"]).map(Secret);
            self.session_token =
                self.session_token.or_else(|| first(&["AWS_SESSION_TOKEN"]).map(Secret));
        }
        self.ca_file = self.ca_file.or_else(|| first(&["AWS_CA_BUNDLE"]).map(PathBuf::from));
        self
    }

    /// Whether credentials come from somewhere.
    pub(super) fn has_credentials(&self) -> bool {
        self.access_key_id.is_some()
            || self.instance_role
            || FETCHED.iter().any(|name| std::env::var_os(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_what_is_left_open_and_sources_are_not_mixed() {
        let variable = |name: &str| Some(format!("env {name}"));
        let all = Options::default().or(variable);
        assert_eq!(all.endpoint.as_deref(), Some("env AWS_ENDPOINT_URL_S3"));
        assert_eq!(all.access_key_id.as_deref(), Some("env AWS_ACCESS_KEY_ID"));
        assert_eq!(all.session_token.unwrap().reveal(), "env AWS_SESSION_TOKEN");
        let own = Options {
            access_key_id: Some("own".into()),
            secret_access_key: Some(Secret::new("hidden")),
            ..Options::default()
        };
        let own = own.or(variable);
        assert_eq!(own.secret_access_key.as_ref().unwrap().reveal(), "hidden");
        assert_eq!(own.session_token, None);
    }

    #[test]
    fn no_secret_is_printed() {
        let options =
            Options { secret_access_key: Some(Secret::new("hidden")), ..Options::default() };
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
