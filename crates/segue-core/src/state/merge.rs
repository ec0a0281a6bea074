//! Merging two changes of one JSON value, made from the same base.

use serde_json::{Map, Value};

/// Pointers that a conflict names at most.
pub const POINTERS_MAX: usize = 32;

/// Both sides changed the same, differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// Where, as JSON pointers (RFC 6901), in the order of the keys; the empty one is the whole value.
    pub pointers: Vec<String>,
    /// Whether there are more than [`POINTERS_MAX`].
    pub more: bool,
}

/// Merges what both sides made of `base`; `None` is a value that is not there.
///
/// - What only one side changed is as that side left it; a removal is a change.
/// - What both changed alike is as both left it.
/// - Where both changed it, and both left an object where the base had an object or nothing, it is merged key by key.
/// - Everything else that both changed is a conflict. Arrays, texts and numbers are never looked into.
///
/// # Errors
/// Every place where both sides changed the same, differently.
pub fn merge(
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
) -> Result<Option<Value>, Conflicts> {
    let mut conflicts = Conflicts::default();
    let merged = at(base, ours, theirs, &mut String::new(), &mut conflicts);
    if conflicts.pointers.is_empty() { Ok(merged) } else { Err(conflicts) }
}

fn at(
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
    pointer: &mut String,
    conflicts: &mut Conflicts,
) -> Option<Value> {
    if ours == theirs || theirs == base {
        return ours.cloned();
    }
    if ours == base {
        return theirs.cloned();
    }
    let nothing = Map::new();
    let base = match base {
        None => Some(&nothing),
        Some(Value::Object(base)) => Some(base),
        Some(_) => None,
    };
    match (base, ours, theirs) {
        (Some(base), Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            Some(Value::Object(objects(base, ours, theirs, pointer, conflicts)))
        }
        _ => {
            match conflicts.pointers.len() < POINTERS_MAX {
                true => conflicts.pointers.push(pointer.clone()),
                false => conflicts.more = true,
            }
            None
        }
    }
}

/// Key by key, in the order of theirs; what only ours has comes behind.
fn objects(
    base: &Map<String, Value>,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
    pointer: &mut String,
    conflicts: &mut Conflicts,
) -> Map<String, Value> {
    let mut merged = Map::new();
    let new = ours.keys().filter(|key| !theirs.contains_key(*key));
    // A key of the base that both removed is in neither, and stays away.
    for key in theirs.keys().chain(new) {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let value = at(base.get(key), ours.get(key), theirs.get(key), pointer, conflicts);
        pointer.truncate(length);
        if let Some(value) = value {
            merged.insert(key.clone(), value);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn merged(base: Value, ours: Value, theirs: Value) -> Result<Value, Vec<String>> {
        merge(Some(&base), Some(&ours), Some(&theirs))
            .map(|merged| merged.expect("something stays"))
            .map_err(|conflicts| conflicts.pointers)
    }

    fn pointers(found: &[&str]) -> Result<Value, Vec<String>> {
        Err(found.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn what_one_side_changed_is_as_that_side_left_it() {
        let base = json!({"a": 1, "b": {"c": 2, "d": 3}, "gone": 0});
        let ours = json!({"a": 9, "b": {"c": 2, "d": 3}, "gone": 0, "new": [1]});
        let theirs = json!({"a": 1, "b": {"c": 8}});
        let expected = json!({"a": 9, "b": {"c": 8}, "new": [1]});
        assert_eq!(merged(base, ours, theirs), Ok(expected));
    }

    #[test]
    fn what_both_changed_differently_is_named() {
        let base = json!({"a": 1, "b": {"c/d": 2, "e~f": 3}, "l": [1]});
        let ours = json!({"a": 2, "b": {"c/d": 5, "e~f": 4}, "l": [1, 2]});
        let theirs = json!({"a": 3, "b": {"c/d": 6}, "l": [0, 1]});
        assert_eq!(merged(base, ours, theirs), pointers(&["/a", "/b/c~1d", "/b/e~0f", "/l"]));
    }

    #[test]
    fn both_may_add_an_object_of_the_same_name() {
        let base = json!({});
        assert_eq!(
            merged(base.clone(), json!({"n": {"a": 1}}), json!({"n": {"b": 2}})),
            Ok(json!({"n": {"a": 1, "b": 2}}))
        );
        assert_eq!(
            merged(base, json!({"n": {"a": 1}}), json!({"n": {"a": 2}})),
            pointers(&["/n/a"])
        );
    }

    #[test]
    fn a_base_of_another_kind_is_no_object() {
        assert_eq!(merged(json!(1), json!({"a": 1}), json!({"b": 1})), pointers(&[""]));
        assert_eq!(
            merge(None, Some(&json!({"a": 1})), Some(&json!({"b": 1}))),
            Ok(Some(json!({"a": 1, "b": 1})))
        );
        // One removed what the other changed.
        let conflicts = merge(Some(&json!(1)), None, Some(&json!(2))).unwrap_err();
        assert_eq!(conflicts.pointers, [""]);
        assert_eq!(merge(Some(&json!(1)), None, Some(&json!(1))), Ok(None));
    }

    #[test]
    fn a_list_of_conflicts_is_bounded() {
        let side = |value: usize| -> Value {
            (0..POINTERS_MAX + 5)
                .map(|n| (format!("k{n}"), json!(value)))
                .collect::<Map<_, _>>()
                .into()
        };
        let conflicts = merge(Some(&side(0)), Some(&side(1)), Some(&side(2))).unwrap_err();
        assert_eq!((conflicts.pointers.len(), conflicts.more), (POINTERS_MAX, true));
    }

    /// Small values over few keys, so that both sides meet.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            (0..3_u32).prop_map(|n| json!(n)),
            Just(Value::Null),
            Just(json!([])),
            Just(json!([1, 2])),
            Just(json!("~")),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop::collection::btree_map(
                prop_oneof!["[a-c]", Just("a/b".to_owned()), Just("~1".to_owned())],
                inner,
                0..4,
            )
            .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    fn maybe() -> impl Strategy<Value = Option<Value>> {
        prop::option::weighted(0.9, value())
    }

    /// Every place of a value, by its pointer.
    fn places(value: Option<&Value>, pointer: &str, into: &mut BTreeSet<String>) {
        let Some(value) = value else { return };
        into.insert(pointer.to_owned());
        if let Value::Object(map) = value {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(Some(value), &format!("{pointer}/{key}"), into);
            }
        }
    }

    fn found<'a>(value: Option<&'a Value>, pointer: &str) -> Option<&'a Value> {
        value.and_then(|value| value.pointer(pointer))
    }

    /// Where both sides differ from the base and each other and cannot be looked into: said once more, without recursion.
    fn expected_conflicts(
        base: Option<&Value>,
        ours: Option<&Value>,
        theirs: Option<&Value>,
    ) -> BTreeSet<String> {
        let mut all = BTreeSet::from([String::new()]);
        for side in [base, ours, theirs] {
            places(side, "", &mut all);
        }
        let clashes = |at: &str| {
            let (base, ours, theirs) = (found(base, at), found(ours, at), found(theirs, at));
            ours != theirs && ours != base && theirs != base
        };
        let opens = |at: &str| {
            let (base, ours, theirs) = (found(base, at), found(ours, at), found(theirs, at));
            base.is_none_or(Value::is_object)
                && ours.is_some_and(Value::is_object)
                && theirs.is_some_and(Value::is_object)
        };
        // Looked at only where everything above it clashes and could be looked into.
        let reached = |at: &str| {
            at.match_indices('/').all(|(end, _)| clashes(&at[..end]) && opens(&at[..end]))
        };
        all.iter().filter(|at| reached(at) && clashes(at) && !opens(at)).cloned().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_side_that_changed_nothing_leaves_the_other(base in maybe(), x in maybe()) {
            let (base, x) = (base.as_ref(), x.as_ref());
            prop_assert_eq!(merge(base, x, base), Ok(x.cloned()));
            prop_assert_eq!(merge(base, base, x), Ok(x.cloned()));
            prop_assert_eq!(merge(base, x, x), Ok(x.cloned()));
        }

        #[test]
        fn it_is_the_same_from_both_sides(base in maybe(), ours in maybe(), theirs in maybe()) {
            let one = merge(base.as_ref(), ours.as_ref(), theirs.as_ref());
            let two = merge(base.as_ref(), theirs.as_ref(), ours.as_ref());
            let sorted = |conflicts: Conflicts| conflicts.pointers.into_iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(one.map_err(sorted), two.map_err(sorted));
        }

        #[test]
        fn merging_again_changes_nothing(base in maybe(), ours in maybe(), theirs in maybe()) {
            if let Ok(merged) = merge(base.as_ref(), ours.as_ref(), theirs.as_ref()) {
                let merged = merged.as_ref();
                // Whoever made the same change once more, from what they read or from what came of it, changes nothing.
                prop_assert_eq!(merge(theirs.as_ref(), merged, theirs.as_ref()), Ok(merged.cloned()));
                prop_assert_eq!(merge(merged, merged, merged), Ok(merged.cloned()));
                prop_assert_eq!(merge(base.as_ref(), ours.as_ref(), merged), Ok(merged.cloned()));
            }
        }

        #[test]
        fn conflicts_are_exactly_where_both_changed_the_same(base in maybe(), ours in maybe(), theirs in maybe()) {
            let (base, ours, theirs) = (base.as_ref(), ours.as_ref(), theirs.as_ref());
            let expected = expected_conflicts(base, ours, theirs);
            let found = merge(base, ours, theirs).err().unwrap_or_default();
            prop_assert!(!found.more);
            prop_assert_eq!(found.pointers.len(), expected.len());
            prop_assert_eq!(found.pointers.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
