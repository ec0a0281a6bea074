//! Which rows there are and how an export spells them: names and plain values, so that another backend can read them.

use super::{Cells, decode};
use crate::failure::{Failure, Kind};
use segue_core::payload::{Hash, INLINE_MAX, Payload as Body};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// How a column is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// A number.
    Number,
    /// A text. JSON in a column is a text, too: every byte of it counts.
    Text,
    /// A UUID.
    Id,
    /// SHA-256 in hexadecimal digits.
    Hash,
    /// The JSON text of a payload, or `{"hash": .., "size": ..}`.
    Payload,
}

/// A table of an export. The project is left out: an export is of one.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The order in which its rows are written.
    pub(crate) order: &'static str,
    pub(crate) columns: &'static [(&'static str, As)],
    /// Whether its rows name their project.
    pub(crate) has_project: bool,
}

use As::{Hash as H, Id as I, Number as N, Payload as P, Text as T};

/// The version of the tables as every backend exports them. A migration that changes what is exported makes it greater.
pub(crate) const TABLES_VERSION: i64 = 2;

/// By how much numbers jump in a restored store: more than are issued between two backups, and 2^53 is two million jumps away.
pub(crate) const JUMP: i64 = 1 << 32;
/// The numbers that are never issued twice: tables of one row, with their columns. Versions of shared state and tokens of locks are stamps.
pub(crate) const COUNTERS: (&str, &[&str]) =
    ("counters", &["next_cursor", "next_letter", "next_task"]);
pub(crate) const STAMPS: (&str, &[&str]) = ("stamps", &["last"]);

/// All tables but those that say of which version and project the file is.
pub(crate) const TABLES: [Table; 16] = [
    Table {
        name: "counters",
        order: "project",
        columns: &[
            ("committed_at", N),
            ("next_cursor", N),
            ("next_letter", N),
            ("next_task", N),
            ("project_events", N),
            ("states", T),
        ],
        has_project: true,
    },
    Table {
        name: "agents",
        order: "instance",
        columns: &[
            ("instance", I),
            ("host", I),
            ("incarnation", I),
            ("spec", T),
            ("slots_used", N),
            ("drained", N),
            ("lease_until", N),
            ("gone", N),
        ],
        has_project: true,
    },
    Table {
        name: "tasks",
        order: "n",
        columns: &[
            ("n", N),
            ("id", I),
            ("parent", I),
            ("root", I),
            ("name", T),
            ("call_key", T),
            ("route", T),
            ("priority", N),
            ("hops", N),
            ("spec", T),
            ("created_at", N),
            ("input", P),
            ("state", N),
            ("unmet", N),
            ("rank", N),
            ("due_at", N),
            ("attempts", N),
            ("tried", N),
            ("lost", N),
            ("open_children", N),
            ("children", N),
            ("dependents", N),
            ("wait_for", N),
            ("continuation", P),
            ("prefer", I),
            ("ready_at", N),
            ("retry_at", N),
            ("finished_at", N),
            ("output", P),
            ("error", T),
            ("run_events", N),
            ("held_by", I),
            ("attempt", I),
            ("number", N),
            ("secret_hash", H),
            ("instance", I),
            ("incarnation", I),
            ("assigned_at", N),
            ("started_at", N),
            ("pid", N),
            ("pid_start", N),
            ("ending", N),
            ("ended_at", N),
        ],
        has_project: true,
    },
    Table {
        name: "edges",
        order: "need, task",
        columns: &[("need", I), ("task", I), ("order_only", N)],
        has_project: true,
    },
    Table {
        name: "attempts",
        order: "task, number",
        columns: &[
            ("task", I),
            ("number", N),
            ("attempt", I),
            ("secret_hash", H),
            ("instance", I),
            ("incarnation", I),
            ("assigned_at", N),
            ("started_at", N),
            ("pid", N),
            ("pid_start", N),
            ("ending", N),
            ("ended_at", N),
            ("error", T),
            ("usage", T),
        ],
        has_project: true,
    },
    Table {
        name: "events",
        order: "cursor",
        columns: &[
            ("cursor", N),
            ("run", I),
            ("run_seq", N),
            ("task", I),
            ("at", N),
            ("kind", T),
            ("data", T),
        ],
        has_project: true,
    },
    Table {
        name: "letters",
        order: "seq",
        columns: &[("seq", N), ("task", I), ("attempt", I), ("host", I), ("body", T)],
        has_project: true,
    },
    Table {
        name: "duties",
        order: "task, kind",
        columns: &[("task", I), ("kind", T), ("after", I), ("parent", N)],
        has_project: true,
    },
    Table {
        name: "idempotency",
        order: "task, key",
        columns: &[("key", T), ("task", I), ("body", H)],
        has_project: true,
    },
    Table { name: "stamps", order: "project", columns: &[("last", N)], has_project: true },
    Table {
        name: "state_keys",
        order: "key",
        columns: &[("key", T), ("version", N)],
        has_project: true,
    },
    Table {
        name: "state_versions",
        order: "version",
        columns: &[
            ("version", N),
            ("key", T),
            ("value", P),
            ("writer", T),
            ("at", N),
            ("merged", N),
        ],
        has_project: true,
    },
    Table {
        name: "state_policies",
        order: "pattern",
        columns: &[("pattern", T), ("policy", T)],
        has_project: true,
    },
    Table {
        name: "locks",
        order: "name",
        columns: &[("name", T), ("token", N), ("holder", T), ("taken_at", N), ("until", N)],
        has_project: true,
    },
    Table {
        name: "payloads",
        // Bodies of later runs stand behind those of earlier ones, so that a backup finds what is new at the end.
        order: "(SELECT r.run FROM payload_refs AS r WHERE r.hash = payloads.hash ORDER BY r.run LIMIT 1), hash",
        columns: &[("hash", H), ("body", T)],
        has_project: false,
    },
    Table {
        name: "payload_refs",
        order: "run, hash",
        columns: &[("run", I), ("hash", H)],
        has_project: true,
    },
];

impl Table {
    /// Names of the columns, in order.
    pub(crate) fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// A row of these columns as an object; what is NULL is left out.
    pub(crate) fn spell<R: Cells>(&self, row: &R) -> Result<Map<String, Value>, Failure> {
        let mut object = Map::new();
        for (at, (name, spelled)) in self.columns.iter().enumerate() {
            let value = match spelled {
                _ if row.is_null(at)? => continue,
                As::Number => json!(decode::integer(row, at)?),
                As::Text => json!(decode::text(row, at)?),
                As::Id => json!(Uuid::from_bytes(decode::bytes(row, at)?)),
                As::Hash => json!(Hash(decode::bytes(row, at)?)),
                As::Payload => match decode::payload(row, at)? {
                    Some(payload) => match payload.text() {
                        Some(text) => json!(text),
                        None => json!({"hash": payload.hash(), "size": payload.size()}),
                    },
                    None => continue,
                },
            };
            object.insert((*name).to_owned(), value);
        }
        Ok(object)
    }

    /// The reverse of [`Table::spell`]: a cell for each column.
    pub(crate) fn read(&self, object: &Map<String, Value>) -> Result<Vec<Cell>, Failure> {
        if let Some(unknown) =
            object.keys().find(|key| self.columns.iter().all(|(name, _)| name != key))
        {
            return Err(wrong(self.name, unknown, "is not known"));
        }
        let cell = |(name, spelled): &(&str, As)| match object.get(*name) {
            None | Some(Value::Null) => Ok(Cell::Null),
            Some(value) => read_cell(*spelled, value).ok_or_else(|| {
                wrong(self.name, name, &format!("holds {value}, which does not fit"))
            }),
        };
        self.columns.iter().map(cell).collect()
    }
}

fn wrong(table: &str, column: &str, what: &str) -> Failure {
    Failure::new(Kind::Data, format!("column `{column}` of `{table}` {what}"))
}

/// A value of an export, before it is known to which backend it goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// There is none.
    Null,
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
    /// A UUID.
    Id(Uuid),
    /// SHA-256.
    Hash(Hash),
    /// A payload: short JSON that stands in the row, or a reference.
    Payload(Body),
}

fn read_cell(spelled: As, value: &Value) -> Option<Cell> {
    Some(match spelled {
        As::Number => Cell::Number(value.as_i64()?),
        As::Text => Cell::Text(value.as_str()?.to_owned()),
        As::Id => Cell::Id(Uuid::parse_str(value.as_str()?).ok()?),
        As::Hash => Cell::Hash(Hash::from_hex(value.as_str()?)?),
        As::Payload => Cell::Payload(match value {
            // What stands in a row is trusted to be JSON and short when it is read back.
            Value::String(text) if text.len() <= INLINE_MAX => {
                serde_json::from_str::<IgnoredAny>(text).ok()?;
                Body::of_trusted_text(text)
            }
            _ => Body::Stored {
                hash: Hash::from_hex(value.get("hash")?.as_str()?)?,
                size: value.get("size")?.as_u64()?,
            },
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// A column that a migration adds has to be added here, too.
    #[test]
    fn every_column_of_every_table_is_exported() {
        let conn = Connection::open_in_memory().expect("opens");
        for sql in crate::sqlite::statements() {
            conn.execute_batch(sql).expect("creates");
        }
        let mut statement = conn
            .prepare(
                "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
                 WHERE t.type = 'table' AND t.name <> 'projects'",
            )
            .expect("prepares");
        let columns: Vec<(String, String)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .expect("reads");
        assert!(columns.len() > 90, "{columns:?}");
        for (name, column) in &columns {
            let table = TABLES.iter().find(|table| table.name == name);
            let table = table.unwrap_or_else(|| panic!("`{name}` is not exported"));
            let is_there = table.columns.iter().any(|(name, _)| name == column)
                || (column == "project" && table.has_project);
            assert!(is_there, "`{column}` of `{name}` is not exported");
        }
    }
}
