//! Whether anybody can take a task at all, now.

use super::error::ApiError;
use super::state::Api;
use super::views::WarningView;
use segue_core::task::Route;
use segue_core::workflow::did_you_mean;
use std::collections::BTreeSet;

/// Names that a hint lists at most.
const LISTED_MAX: usize = 12;

/// Who there is.
#[derive(Debug, Default)]
pub struct Known {
    agents: BTreeSet<String>,
    capabilities: BTreeSet<String>,
}

impl Known {
    /// Everybody that this node hosts or knows; where no node runs, everybody that is defined.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn of(api: &Api) -> Result<Known, ApiError> {
        let mut known = Known::default();
        let mut add = |spec: &segue_core::agent::AgentSpec| {
            known.agents.insert(spec.name.to_string());
            known.capabilities.extend(spec.capabilities.iter().map(|can| can.name.to_string()));
        };
        if api.engine.is_some() {
            for agent in api.store().agents().await?.iter().filter(|agent| !agent.gone) {
                add(&agent.spec);
            }
        } else {
            for member in &api.sound_roster()?.members {
                add(&member.spec);
            }
        }
        Ok(known)
    }

    /// Why nobody can take a task of this route; `None` where somebody can.
    pub fn lacks(&self, route: &Route) -> Option<WarningView> {
        let (what, name, there) = match route {
            Route::Group => return None,
            Route::Agent(name) => ("agent", name, &self.agents),
            Route::Capability(name) => ("capability", name, &self.capabilities),
        };
        if there.contains(name.as_ref()) {
            return None;
        }
        let message = match what {
            "agent" => format!("there is no agent `{name}`"),
            _ => format!("no agent has the capability `{name}`"),
        };
        let hint = did_you_mean(name, there.iter().map(String::as_str)).unwrap_or_else(|| {
            let listed: Vec<&str> = there.iter().take(LISTED_MAX).map(String::as_str).collect();
            match (listed.is_empty(), there.len() > LISTED_MAX) {
                (true, _) => format!("there is no {what} at all: `segue agents` shows who there is, `segue init` writes an example"),
                (false, true) => format!("there are {}, and more", listed.join(", ")),
                (false, false) => format!("there are {}", listed.join(", ")),
            }
        });
        Some(WarningView { message, hint: Some(hint), line: None })
    }
}

/// What to do with warnings that nobody can take a task.
///
/// # Errors
/// The first of them, unless missing agents are allowed.
pub fn allow(missing: Vec<WarningView>, allowed: bool) -> Result<Vec<WarningView>, ApiError> {
    if allowed || missing.is_empty() {
        return Ok(missing);
    }
    let message: Vec<&str> = missing.iter().map(|warning| warning.message.as_str()).collect();
    let hints: Vec<&str> = missing.iter().filter_map(|warning| warning.hint.as_deref()).collect();
    Err(ApiError::invalid(message.join("; ")).hint(hints.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Known { agents: set(&["reviewer", "writer"]), capabilities: set(&["translate"]) }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_offered_and_one_that_is_not_gets_the_list() {
        let hint = |route: &Route| known().lacks(route).and_then(|warning| warning.hint);
        assert_eq!(known().lacks(&Route::agent("writer")), None);
        assert_eq!(known().lacks(&Route::Group), None);
        assert_eq!(hint(&Route::agent("reviwer")).unwrap(), "did you mean `reviewer`?");
        assert_eq!(hint(&Route::agent("zzz")).unwrap(), "there are reviewer, writer");
        assert_eq!(hint(&Route::capability("translte")).unwrap(), "did you mean `translate`?");
    }

    #[test]
    fn missing_agents_are_refused_unless_allowed() {
        let warning = known().lacks(&Route::agent("zzz")).unwrap();
        assert_eq!(allow(vec![warning.clone()], true).unwrap(), std::slice::from_ref(&warning));
        let error = allow(vec![warning], false).unwrap_err();
        assert_eq!(error.message, "there is no agent `zzz`");
        assert!(error.hint.unwrap().contains("reviewer"));
    }
}
