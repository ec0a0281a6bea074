//! What the API says when it refuses.

use crate::backups;
use crate::failure::Exit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use segue_core::command::Reject;
use segue_core::ports::StoreError;
use segue_core::workflow::Diagnostics;
use segue_engine::EngineError;
use segue_store::backup::BackupError;
use serde::{Deserialize, Serialize};

/// A refusal: `{"error": {"code": .., "message": .., "hint": ..}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiError {
    /// Which kind it is.
    pub code: ErrorCode,
    /// What is wrong, and where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of a workflow file: everything that is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticView>,
    /// The HTTP status, where it is not the usual one of the code.
    #[serde(skip)]
    pub status: Option<u16>,
}

/// Which kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such thing. 404.
    NotFound,
    /// The request is wrong. 400, 405, 413 or 422.
    Invalid,
    /// Something else holds this key, or the id fits several. 409.
    Conflict,
    /// Not in the present state. 409.
    Illegal,
    /// The node or its store cannot, now. 503.
    Unavailable,
}

/// One thing that is wrong with a workflow file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticView {
    /// What is wrong.
    pub message: String,
    /// The line, from 1; 0 when it is about the file as a whole.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// How many characters it is about.
    pub length: u32,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The object around an [`ApiError`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The refusal.
    pub error: ApiError,
}

impl ApiError {
    /// A refusal of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            hint: None,
            diagnostics: Vec::new(),
            status: None,
        }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorCode::NotFound, message)
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = Some(hint.into());
        self
    }

    /// With another HTTP status than that of its code.
    #[must_use]
    pub fn status(mut self, status: u16) -> ApiError {
        self.status = Some(status);
        self
    }

    /// A workflow file that is wrong.
    pub fn workflow(diagnostics: &Diagnostics) -> ApiError {
        ApiError {
            diagnostics: diagnostics
                .iter()
                .map(|item| DiagnosticView {
                    message: item.message.clone(),
                    line: item.line,
                    column: item.column,
                    length: item.length,
                    hint: item.hint.clone(),
                })
                .collect(),
            ..ApiError::invalid(format!("the workflow is wrong: {diagnostics}"))
        }
    }

    fn http_status(&self) -> StatusCode {
        if let Some(status) = self.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            return status;
        }
        match self.code {
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Conflict | ErrorCode::Illegal => StatusCode::CONFLICT,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.http_status(), axum::Json(ErrorBody { error: self })).into_response()
    }
}

impl From<Reject> for ApiError {
    fn from(reject: Reject) -> ApiError {
        let message = reject.to_string();
        let hint = hint(&reject);
        let code = match reject {
            Reject::Unknown { .. } => ErrorCode::NotFound,
            Reject::Forbidden(_) | Reject::Illegal { .. } => ErrorCode::Illegal,
            Reject::Conflict(_)
            | Reject::Superseded(_)
            | Reject::StateConflict(_)
            | Reject::Held { .. }
            | Reject::Fenced(_) => ErrorCode::Conflict,
            Reject::Cycle { .. } | Reject::Invalid(_) => ErrorCode::Invalid,
            Reject::NotLoaded(_) => ErrorCode::Unavailable,
        };
        ApiError { hint, ..ApiError::new(code, message) }
    }
}

/// What to do about a refusal of shared state or a lock.
fn hint(reject: &Reject) -> Option<String> {
    match reject {
        Reject::StateConflict(conflict) => {
            let key = &conflict.key;
            Some(match (conflict.current, conflict.pointers.is_empty()) {
                (None, _) => format!(
                    "it was deleted, or never there: `segue state history {key}` tells; write it with --expect absent"
                ),
                (Some(now), true) => format!(
                    "read it again with `segue state get {key}`, change that, and put it with --expect {now}; or let both changes be merged with --policy merge"
                ),
                (Some(now), false) => format!(
                    "settle by hand what both changed: `segue state get {key}` shows what stands there; put the outcome with --expect {now}"
                ),
            })
        }
        Reject::Held { .. } => {
            Some("wait for it with --wait, or look who has what with `segue lock list`".to_owned())
        }
        Reject::Fenced(_) => {
            Some("take the lock again, and look first what its last holder did".to_owned())
        }
        _ => None,
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::new(ErrorCode::Unavailable, error.to_string())
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> ApiError {
        let code = match backups::failure(&error).exit {
            Exit::Node => ErrorCode::Unavailable,
            Exit::Failed => ErrorCode::Conflict,
            _ => ErrorCode::Invalid,
        };
        ApiError { hint: error.hint().map(str::to_owned), ..ApiError::new(code, error.to_string()) }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        match error {
            EngineError::Rejected(reject) => reject.into(),
            EngineError::Store(error) => error.into(),
            other @ EngineError::Bus(_) => ApiError::new(ErrorCode::Unavailable, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_status() {
        let unknown = ApiError::from(Reject::Unknown { what: "task", id: "x".into() });
        assert_eq!((unknown.code, unknown.http_status().as_u16()), (ErrorCode::NotFound, 404));
        let cycle =
            ApiError::from(Reject::Cycle { path: vec!["a".into(), "b".into(), "a".into()] });
        assert_eq!((cycle.code, cycle.http_status().as_u16()), (ErrorCode::Invalid, 422));
        assert!(cycle.message.ends_with("a -> b -> a"), "{}", cycle.message);
        let full = ApiError::from(StoreError::Full("x".into()));
        assert_eq!((full.code, full.http_status().as_u16()), (ErrorCode::Unavailable, 503));
    }
}
