//! The environment of an agent's program: what it is given by name, and nothing else.

use std::ffi::{OsStr, OsString};

/// The variables that a program gets from its node unless told otherwise; `*` at the end stands for any rest.
///
/// They say where things are and how to speak, and hold no secrets. Keys, tokens, proxies with
/// passwords and sockets of other services (`SSH_AUTH_SOCK`, `DOCKER_HOST`, `XDG_RUNTIME_DIR`) are
/// not among them: they are handed out by configuration only.
pub const DEFAULT_ALLOW: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
];

/// Says to every process of an attempt whose it is, and to Segue which processes are its own.
pub const ATTEMPT_VARIABLE: &str = "SEGUE_ATTEMPT";

/// `PATH` for a node that has none itself.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why an environment was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The name of a variable cannot be one.
    #[error("the variable name {name:?} is not allowed: {why}; rename it in the agent's `env`")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The value of a variable cannot be one.
    #[error(
        "the value of the variable `{name}` contains a NUL byte, which no environment can hold"
    )]
    BadValue {
        /// The variable's name.
        name: String,
    },
    /// An entry of the allow-list cannot be one.
    #[error("the entry {entry:?} of the allow-list `env_allow` is not usable: {why}")]
    BadAllow {
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The environment for a program: this process's variables that [`DEFAULT_ALLOW`] or `allow` name,
/// then `set`, which wins. `TERM` is `dumb` unless it is allowed or set.
///
/// # Errors
/// A name that is empty or contains `=` or NUL, a value that contains NUL, and an entry of `allow`
/// that would let everything through (`*`).
pub fn scrubbed_env(
    allow: &[String],
    set: &[(String, String)],
) -> Result<Vec<(OsString, OsString)>, EnvError> {
    scrub(std::env::vars_os(), allow, set)
}

/// [`scrubbed_env`] of the variables given, sorted by name.
///
/// # Errors
/// As [`scrubbed_env`].
pub fn scrub(
    from: impl IntoIterator<Item = (OsString, OsString)>,
    allow: &[String],
    set: &[(String, String)],
) -> Result<Vec<(OsString, OsString)>, EnvError> {
    for entry in allow {
        check_allow(entry)?;
    }
    for (name, value) in set {
        check_name(name)?;
        if value.contains('\0') {
            return Err(EnvError::BadValue { name: name.clone() });
        }
    }
    let allowed = |name: &OsStr| {
        let mut entries = DEFAULT_ALLOW.iter().copied().chain(allow.iter().map(String::as_str));
        name.to_str().is_some_and(|name| entries.any(|entry| matches_entry(entry, name)))
    };
    let mut env = std::collections::BTreeMap::from([
        (OsString::from("PATH"), OsString::from(PATH_DEFAULT)),
        (OsString::from("TERM"), OsString::from("dumb")),
    ]);
    env.extend(from.into_iter().filter(|(name, _)| allowed(name)));
    env.extend(set.iter().map(|(name, value)| (name.into(), value.into())));
    Ok(env.into_iter().collect())
}

fn matches_entry(entry: &str, name: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == entry,
    }
}

fn check_name(name: &str) -> Result<(), EnvError> {
    match name_fault(name) {
        Some(why) => Err(EnvError::BadName { name: name.to_owned(), why }),
        None => Ok(()),
    }
}

fn check_allow(entry: &str) -> Result<(), EnvError> {
    let refuse = |why| Err(EnvError::BadAllow { entry: entry.to_owned(), why });
    let start = entry.strip_suffix('*').unwrap_or(entry);
    match name_fault(start) {
        _ if entry == "*" => refuse(
            "it would hand over every variable, secrets included; name those that are needed",
        ),
        Some(why) => refuse(why),
        None if start.contains('*') => refuse("`*` may only stand at the end"),
        None => Ok(()),
    }
}

fn name_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.contains('=') {
        Some("it contains `=`")
    } else if name.contains('\0') {
        Some("it contains a NUL byte")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Vec<(OsString, OsString)> {
        [
            ("PATH", "/opt/bin:/bin"),
            ("HOME", "/ada"),
            ("LC_TIME", "de_DE.UTF-8"),
            ("LCX", "no"),
            ("TERM", "xterm-256color"),
            ("ANTHROPIC_API_KEY", "sk-secret"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("SEGUE_TOKEN", "secret"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .to_vec()
    }

    fn names(env: &[(OsString, OsString)]) -> Vec<&str> {
        env.iter().map(|(name, _)| name.to_str().expect("text")).collect()
    }

    #[test]
    fn only_named_variables_come_through() {
        let env = scrub(node(), &[], &[]).expect("fine");
        assert_eq!(names(&env), ["HOME", "LC_TIME", "PATH", "TERM"]);
        assert!(env.contains(&("TERM".into(), "dumb".into())));
        assert!(env.contains(&("PATH".into(), "/opt/bin:/bin".into())));
    }

    #[test]
    fn configuration_adds_and_wins() {
        let allow = ["ANTHROPIC_*".to_owned(), "TERM".to_owned()];
        let set =
            [("HOME".to_owned(), "/elsewhere".to_owned()), ("EMPTY".to_owned(), String::new())];
        let env = scrub(node(), &allow, &set).expect("fine");
        assert_eq!(names(&env), ["ANTHROPIC_API_KEY", "EMPTY", "HOME", "LC_TIME", "PATH", "TERM"]);
        assert!(env.contains(&("HOME".into(), "/elsewhere".into())));
        assert!(env.contains(&("TERM".into(), "xterm-256color".into())));
    }

    #[test]
    fn a_node_without_a_path_still_finds_the_usual_programs() {
        let env = scrub([], &[], &[]).expect("fine");
        assert!(env.contains(&("PATH".into(), PATH_DEFAULT.into())));
    }

    #[test]
    fn unusable_names_values_and_entries_are_refused() {
        for name in ["", "A=B", "A\0", "="] {
            let error = scrub([], &[], &[(name.to_owned(), "x".to_owned())]).expect_err("refused");
            assert!(matches!(error, EnvError::BadName { .. }), "{error}");
        }
        let error = scrub([], &[], &[("A".to_owned(), "x\0y".to_owned())]).expect_err("refused");
        assert_eq!(error, EnvError::BadValue { name: "A".to_owned() });
        for entry in ["", "*", "A=*", "*_KEY", "A*B*", "A\0"] {
            let error = scrub([], &[entry.to_owned()], &[]).expect_err("refused");
            assert!(matches!(error, EnvError::BadAllow { .. }), "{entry}: {error}");
        }
    }

    #[test]
    fn a_name_that_is_not_text_never_comes_through() {
        use std::os::unix::ffi::OsStringExt;
        let odd = (OsString::from_vec(b"LC_\xff".to_vec()), OsString::from("x"));
        assert_eq!(names(&scrub([odd], &[], &[]).expect("fine")), ["PATH", "TERM"]);
    }
}
