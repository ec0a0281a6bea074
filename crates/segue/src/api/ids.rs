//! Which task an id in a request means: a whole id, or the beginning or end of one.

use super::error::{ApiError, ErrorCode};
use super::state::Api;
use segue_core::ids::TaskId;
use segue_core::ports::TaskFilter;
use segue_core::task::Task;
use std::sync::Arc;
use uuid::Uuid;

/// Fewest hexadecimal digits of a part of an id.
const DIGITS_MIN: usize = 4;
/// Tasks, newest first, among which the end of an id is looked for.
const SCAN_MAX: usize = 20_000;
/// Tasks read at a time for that.
const PAGE: usize = 2_000;
/// Tasks that an ambiguous part of an id names in the answer.
const NAMED_MAX: usize = 5;

/// Finds the one task that this text means.
///
/// # Errors
/// When there is none, when there are several, and when the text is no part of an id.
pub async fn resolve(api: &Api, text: &str) -> Result<Arc<Task>, ApiError> {
    let part = Part::parse(text)?;
    if let Part::Whole(id) = part {
        let found = api.store().task(id).await?;
        return found.ok_or_else(|| {
            ApiError::not_found(format!("there is no task {id}")).hint("`segue tasks` lists them")
        });
    }
    let Part::Digits(digits) = part else { return Err(none(text)) };
    let mut found = beginning_with(api, &digits).await?;
    if found.len() <= NAMED_MAX {
        for task in ending_with(api, &digits).await? {
            if found.iter().all(|known| known.id() != task.id()) {
                found.push(task);
            }
        }
    }
    match found.len() {
        0 => Err(none(text)),
        1 => Ok(found.remove(0)),
        _ => Err(several(text, &found)),
    }
}

enum Part {
    Whole(TaskId),
    Digits(String),
}

impl Part {
    fn parse(text: &str) -> Result<Part, ApiError> {
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(Part::Whole(TaskId(id)));
        }
        let digits: String =
            text.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        let is_part = (DIGITS_MIN..32).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_part {
            return Ok(Part::Digits(digits));
        }
        let shown: String = text.chars().take(60).collect();
        Err(ApiError::invalid(format!("{shown:?} is no id of a task")).hint(
            "an id is a UUID, or a part of one: at least 4 of its first or last hexadecimal digits",
        ))
    }
}

fn none(text: &str) -> ApiError {
    ApiError::not_found(format!("no task has an id that begins or ends with `{text}`"))
        .hint("`segue tasks` lists them")
}

fn several(text: &str, found: &[Arc<Task>]) -> ApiError {
    let names: Vec<String> = found
        .iter()
        .take(NAMED_MAX)
        .map(|task| format!("{} ({})", task.id(), task.spec.name))
        .collect();
    let more = if found.len() > NAMED_MAX { ", and more" } else { "" };
    ApiError::new(
        ErrorCode::Conflict,
        format!("`{text}` fits several tasks: {}{more}", names.join(", ")),
    )
    .hint("give more digits of the id")
}

/// Ids sort as their digits do: those that begin with these are next to each other.
async fn beginning_with(api: &Api, digits: &str) -> Result<Vec<Arc<Task>>, ApiError> {
    let padded = |with: &str| {
        let text = format!("{digits}{}", with.repeat(32 - digits.len()));
        u128::from_str_radix(&text, 16).unwrap_or(u128::MAX)
    };
    let (first, last) = (padded("0"), padded("f"));
    let before = last.checked_add(1).map(|next| TaskId(Uuid::from_u128(next)));
    let filter = TaskFilter { before, limit: NAMED_MAX + 1, ..TaskFilter::default() };
    let mut tasks = api.store().tasks(filter).await?;
    tasks.retain(|task| task.id().0.as_u128() >= first);
    Ok(tasks)
}

async fn ending_with(api: &Api, digits: &str) -> Result<Vec<Arc<Task>>, ApiError> {
    let mut found = Vec::new();
    let mut before = None;
    for _ in 0..SCAN_MAX / PAGE {
        let filter = TaskFilter { before, limit: PAGE, ..TaskFilter::default() };
        let page = api.store().tasks(filter).await?;
        let Some(last) = page.last() else { break };
        before = Some(last.id());
        let full = page.len() == PAGE;
        found.extend(
            page.into_iter().filter(|task| task.id().0.simple().to_string().ends_with(digits)),
        );
        if !full || found.len() > NAMED_MAX {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_an_id_a_part_of_one_or_refused_in_words(text in ".{0,80}") {
            match super::Part::parse(&text) {
                Ok(super::Part::Whole(_)) => {}
                Ok(super::Part::Digits(digits)) => {
                    prop_assert!((4..32).contains(&digits.len()));
                    prop_assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
                }
                Err(error) => {
                    let said = format!("{error:?}");
                    prop_assert!(said.contains("no id of a task"), "{}", said);
                }
            }
        }
    }

    use super::*;

    #[test]
    fn a_part_of_an_id_is_four_hexadecimal_digits_or_more_with_or_without_hyphens() {
        let digits = |text| match Part::parse(text) {
            Ok(Part::Digits(digits)) => Some(digits),
            _ => None,
        };
        assert_eq!(digits("ABCD-12"), Some("abcd12".to_owned()));
        assert_eq!(digits("abc"), None);
        assert_eq!(digits("../../etc"), None);
        assert_eq!(digits(&"a".repeat(40)), None);
        assert!(matches!(Part::parse("01939a3e-7c11-7d02-8f00-9a6b1c2d3e4f"), Ok(Part::Whole(_))));
    }
}
