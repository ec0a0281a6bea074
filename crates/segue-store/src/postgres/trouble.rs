//! What PostgreSQL reports, sorted by what comes next.

use crate::failure::{Failure, Kind};
use tokio_postgres::error::{Error, SqlState};

/// Why a statement or a transaction did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Somebody was in the way: the same batch, decided anew, may go through.
    Again(String),
    /// The connection is of no use any more. What was not committed is not kept.
    Dead(String),
    /// The connection went while the transaction of this number was committed: whether it was is to be found out.
    InDoubt(String, i64),
    /// The caller has to know.
    Known(Failure),
}

impl Trouble {
    pub(super) fn data(detail: impl Into<String>) -> Trouble {
        Trouble::Known(Failure::new(Kind::Data, detail))
    }

    /// What a caller hears where nothing more is tried.
    pub(super) fn failure(self) -> Failure {
        match self {
            Trouble::Known(failure) => failure,
            Trouble::Again(detail) => Failure::new(
                Kind::Away,
                format!("it is too busy: {detail}. Nothing was written; it may be tried again"),
            ),
            Trouble::Dead(detail) => Failure::new(
                Kind::Away,
                format!("{detail}. Nothing was written; it is tried again by itself"),
            ),
            Trouble::InDoubt(detail, number) => Failure::new(
                Kind::Away,
                format!(
                    "{detail}, while transaction {number} was committed: whether it was kept is not known"
                ),
            ),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Known(failure)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        let Some(state) = error.code() else {
            // Without a code it is no answer of the server: the connection broke, or a value does not fit its column.
            let text = words(&error);
            return if error.is_closed() || std::error::Error::source(&error).is_some_and(is_io) {
                Trouble::Dead(text)
            } else {
                Trouble::data(text)
            };
        };
        sort(state, words(&error))
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>() || error.source().is_some_and(is_io)
}

/// The message with its code. Never the statement's values, which may be anybody's.
fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (PostgreSQL {})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(error) {
                let source = source.to_string();
                if !text.contains(&source) {
                    text = format!("{text}: {source}");
                }
            }
            text
        }
    }
}

/// The codes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn sort(state: &SqlState, text: String) -> Trouble {
    match state.code() {
        // Serialization, deadlock; a row that somebody else inserted meanwhile is found when it is looked for anew.
        "40001" | "40P01" | "55P03" | "23505" => Trouble::Again(text),
        // A server that takes no writes is not the one that is looked for.
        "25006" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53300" => Trouble::Dead(text),
        "53100" => Trouble::Known(Failure::new(Kind::Full, text)),
        "57014" | "53200" | "53400" => Trouble::Known(Failure::new(
            Kind::Away,
            format!("{text}. Nothing was written; it may be tried again"),
        )),
        "XX001" | "XX002" => Trouble::Known(Failure::corrupt(text)),
        code if code.starts_with("08") => Trouble::Dead(text),
        _ => Trouble::data(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_comes_next() {
        let sorted = |code: &str| sort(&SqlState::from_code(code), "words".into());
        for code in ["40001", "40P01", "23505"] {
            assert!(matches!(sorted(code), Trouble::Again(_)), "{code}");
        }
        for code in ["25006", "57P01", "57P03", "08006", "53300"] {
            assert!(matches!(sorted(code), Trouble::Dead(_)), "{code}");
        }
        for (code, kind) in [
            ("53100", Kind::Full),
            ("57014", Kind::Away),
            ("XX001", Kind::Corrupt),
            ("22021", Kind::Data),
        ] {
            let Trouble::Known(failure) = sorted(code) else { panic!("{code}") };
            assert_eq!(failure.kind, kind, "{code}");
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let error = Trouble::InDoubt("the connection broke".into(), 77).failure();
        assert!(error.detail.contains("not known"), "{error:?}");
        assert_eq!(error.kind, Kind::Away);
    }
}
