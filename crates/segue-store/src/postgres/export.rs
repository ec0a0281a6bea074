//! All rows of a project as JSON lines, and back: the format that every backend writes and reads.

use super::audit;
use super::cells::{self, read};
use super::line::{Ask, Line, Target};
use super::options::Options;
use super::outside::{self, LargeBodies};
use super::schema;
use super::store::PostgresStore;
use super::trouble::Trouble;
use crate::backup::{Exports, Imports, Known};
use crate::failure::{Failure, Kind};
use crate::rows::lines::{
    FORMAT, Header, Lines, PART_BYTES, Summed, check_end, hex, read_header, read_part, single,
};
use crate::rows::tables::{As, Cell, TABLES, TABLES_VERSION, Table};
use futures_util::TryStreamExt;
use segue_core::payload::Hash;
use segue_core::ports::{Fut, StoreError};
use segue_core::time::Time;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::pin::pin;
use std::sync::Arc;
use uuid::Uuid;

/// Rows that one statement of an import writes.
const CHUNK: usize = 500;

/// What the rows of counters and the sequences come to, as one row in the order of the table's columns.
const COUNTERS: &str = "SELECT
    coalesce((SELECT max(committed_at) FROM counters WHERE project = $1), 0)::int8,
    (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM cursors),
    (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM letter_numbers),
    (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM task_numbers),
    (SELECT project_events FROM projects WHERE number = $1),
    (SELECT '[' || concat_ws(',', coalesce(sum(s0), 0), coalesce(sum(s1), 0), coalesce(sum(s2), 0), coalesce(sum(s3), 0),
        coalesce(sum(s4), 0), coalesce(sum(s5), 0), coalesce(sum(s6), 0), coalesce(sum(s7), 0), coalesce(sum(s8), 0)) || ']'
        FROM counters WHERE project = $1)";
/// No number is issued again that an import brought. A sequence that is further already is left alone: other projects take their numbers from it
/// meanwhile.
const SET_NUMBERS: &str = "SELECT setval(name::regclass, wanted - 1) FROM (VALUES
    ('cursors', $1::int8, (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM cursors)),
    ('letter_numbers', $2::int8, (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM letter_numbers)),
    ('task_numbers', $3::int8, (SELECT CASE WHEN is_called THEN last_value + 1 ELSE last_value END FROM task_numbers))
    ) AS n (name, wanted, next) WHERE wanted > next";
/// A project that was emptied may have issued more than the imported one.
const SET_STAMP: &str = "INSERT INTO stamps (project, last) VALUES ($1, $2)
    ON CONFLICT (project) DO UPDATE SET last = greatest(stamps.last, excluded.last)";
/// The types of a table's columns, by which an import casts.
const TYPES: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

impl Exports for PostgresStore {
    fn export_rows(
        &self,
        known: Known,
        mut out: Box<dyn Write + Send>,
    ) -> Fut<'_, Result<(), StoreError>> {
        Box::pin(async move { self.export_but(&known, out.as_mut()).await.map(drop) })
    }
}

/// A project with nothing in it, where [`PostgresStore::connect`] will find what is imported. The bodies go to where these options keep them.
#[derive(Clone, Debug)]
pub struct EmptyProject(pub Options);

impl Imports for EmptyProject {
    fn import_rows(&self, mut from: Box<dyn BufRead + Send>) -> Fut<'_, Result<(), StoreError>> {
        let options = self.0.clone();
        Box::pin(async move {
            // Reading is not asynchronous: the threads that others wait for are left alone.
            let here = tokio::runtime::Handle::current();
            let work = move || here.block_on(import(options, from.as_mut())).map(drop);
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|error| StoreError::Io(format!("the import was cut off: {error}")))?
        })
    }
}

impl PostgresStore {
    /// Writes everything as it stands at one moment. Memory is bounded, whatever the size; others go on meanwhile.
    ///
    /// # Errors
    /// When the database cannot be read, a body is missing, or `out` cannot be written.
    pub async fn export(&self, out: &mut (dyn Write + Send)) -> Result<Header, StoreError> {
        let none: Known = Arc::new(|_| false);
        self.export_but(&none, out).await
    }

    /// The same. A body that is `known` is named only.
    async fn export_but(
        &self,
        known: &Known,
        out: &mut (dyn Write + Send),
    ) -> Result<Header, StoreError> {
        let line = self.own_line().await?;
        let done = self.export_on(&line, known, out).await;
        // The line goes, and with it what it has locked; so nobody has to wait for the server to notice.
        let _ = line.script("SELECT pg_advisory_unlock_all()").await;
        done.map_err(|trouble| self.shared.failed(trouble))
    }

    async fn export_on(
        &self,
        line: &Line,
        known: &Known,
        out: &mut (dyn Write + Send),
    ) -> Result<Header, Trouble> {
        let project = self.shared.project;
        // What is read is as large as the project is.
        line.script("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
            .await?;
        outside::begin_copy(line, project).await?;
        line.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let mut rows = BTreeMap::new();
        for table in &TABLES {
            rows.insert(table.name.to_owned(), count(line, table, project).await?);
        }
        let header = Header {
            segue_export: FORMAT,
            tables_version: TABLES_VERSION,
            project: self.project_id,
            made_at: self.shared.now(),
            rows,
        };
        let mut out = Summed::new(out);
        out.line(&header)?;
        for table in &TABLES {
            let sql = match table.name {
                "counters" => COUNTERS.to_owned(),
                name => format!(
                    "SELECT {} FROM {name} WHERE project = $1 ORDER BY {}",
                    table.names(),
                    table.order
                ),
            };
            let mut rows = pin!(line.stream(&sql, project).await?);
            while let Some(row) = rows.try_next().await? {
                let mut object = table.spell(&row)?;
                if table.name == "letters" {
                    number_body(&mut object);
                }
                out.line(&json!({ table.name: object }))?;
            }
        }
        let hashes = audit::outside(line, project).await?;
        // Bodies never change and are not removed meanwhile: no old rows have to be kept for them.
        line.script("COMMIT").await?;
        for hash in hashes {
            if known(hash) {
                out.line(&json!({ "blob": { "hash": hash } }))?;
                continue;
            }
            let body = self.blobs.get(hash).await.map_err(|error| {
                let what =
                    format!("payload {} is missing: the export would be too ({error})", hash.hex());
                Failure::corrupt(what)
            })?;
            for part in body.chunks(PART_BYTES) {
                out.line(&json!({ "blob": { "hash": hash, "hex": hex(part) } }))?;
            }
        }
        out.end()?;
        Ok(header)
    }
}

async fn count(line: &Line, table: &Table, project: i32) -> Result<u64, Trouble> {
    if table.name == "counters" {
        return Ok(1);
    }
    let sql = format!("SELECT count(*) FROM {} WHERE project = $1", table.name);
    let mut rows = pin!(line.stream(&sql, project).await?);
    let row = rows.try_next().await?;
    let row = row.ok_or_else(|| Trouble::data("the rows cannot be counted"))?;
    Ok(crate::rows::decode::unsigned(&row, 0)?)
}

/// The number of a letter stands in its body, too, and there it is only known once it has been written.
fn number_body(letter: &mut Map<String, Value>) {
    let Some(seq) = letter.get("seq").and_then(Value::as_i64) else { return };
    let Some(Value::String(body)) = letter.get_mut("body") else { return };
    if let Some(rest) = body.strip_prefix("{\"seq\":") {
        let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        *body = format!("{{\"seq\":{seq}{rest}");
    }
}

/// Fills the project of the options, which may be another than the exported one and must hold nothing yet, from an export of any backend. All of it
/// or nothing.
///
/// # Errors
/// [`StoreError::Version`] where the export is of a newer version; [`StoreError::Io`] where it was changed or cut, where the project holds
/// something already, or the rows do not fit together.
pub async fn import(
    options: Options,
    from: &mut (dyn BufRead + Send),
) -> Result<Header, StoreError> {
    let target = Target::of(&options).map_err(|failure| failure.of(&"PostgreSQL"))?;
    let place = target.place.clone();
    let done = import_at(&target, &options, from).await;
    done.map_err(|trouble| trouble.failure().of(&place))
}

async fn import_at(
    target: &Target,
    options: &Options,
    from: &mut (dyn BufRead + Send),
) -> Result<Header, Trouble> {
    let line = target.open([], "").await?;
    schema::migrate(&line).await?;
    let project = schema::project_number(&line, options).await?;
    line.script("BEGIN; SET LOCAL statement_timeout = 0").await?;
    let filled = fill(&line, project, options, from).await;
    match &filled {
        Ok(_) => line.script("COMMIT").await?,
        // The first failure counts.
        Err(_) => drop(line.script("ROLLBACK").await),
    }
    filled
}

async fn fill(
    line: &Line,
    project: i32,
    options: &Options,
    from: &mut (dyn BufRead + Send),
) -> Result<Header, Trouble> {
    check_empty(line, project).await?;
    let mut lines = Lines::new(from);
    let header = read_header(&mut lines, TABLES_VERSION)?;
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    let mut body: Option<(Hash, Vec<u8>)> = None;
    let mut chunk = Chunk { line, project, table: None, rows: Vec::new(), sql: String::new() };
    let mut counters: Option<Vec<Cell>> = None;
    loop {
        let value = lines.next()?;
        let Some((kind, value)) = single(&value) else {
            return Err(lines.wrong("is no object with one key").into());
        };
        if let Some(table) = TABLES.iter().find(|table| table.name == kind) {
            let empty = Map::new();
            let cells = table
                .read(value.as_object().unwrap_or(&empty))
                .map_err(|failure| lines.wrong(&format!("does not fit: {}", failure.detail)))?;
            match table.name {
                "counters" => counters = Some(cells),
                "stamps" => set_stamp(line, project, &cells).await?,
                _ => chunk.add(table, cells).await.map_err(|trouble| at_line(&lines, trouble))?,
            }
            *rows.entry(kind.to_owned()).or_default() += 1;
        } else if kind == "blob" {
            let (hash, part) =
                read_part(value).ok_or_else(|| lines.wrong("is no part of a body"))?;
            match &mut body {
                Some((current, bytes)) if *current == hash => bytes.extend(part),
                _ => keep(&options.blobs, body.replace((hash, part)), &mut lines).await?,
            }
        } else if kind == "end" {
            keep(&options.blobs, body.take(), &mut lines).await?;
            chunk.write().await.map_err(|trouble| at_line(&lines, trouble))?;
            check_end(&lines, value)?;
            break;
        } else {
            return Err(lines.wrong(&format!("is of the unknown kind `{kind}`")).into());
        }
    }
    rows.extend(
        header.rows.iter().filter(|(_, count)| **count == 0).map(|(name, _)| (name.clone(), 0)),
    );
    if rows != header.rows {
        let what = format!("ends {rows:?}, where {:?} were announced", header.rows);
        return Err(lines.wrong(&what).into());
    }
    let counters = counters.ok_or_else(|| lines.wrong("ends, and the counters are missing"))?;
    set_counters(line, project, &counters).await?;
    let findings = audit::audit(line, project, Some(&options.blobs)).await?;
    if let Some(first) = findings.first() {
        let detail = format!("the rows of the export do not fit together: {first}");
        return Err(Trouble::data(detail));
    }
    Ok(header)
}

fn at_line(lines: &Lines<'_>, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Known(failure) if failure.kind == Kind::Data => {
            lines.wrong(&format!("or one before it does not fit: {}", failure.detail)).into()
        }
        // The same row twice.
        Trouble::Again(detail) => {
            lines.wrong(&format!("or one before it does not fit: {detail}")).into()
        }
        other => other,
    }
}

async fn check_empty(line: &Line, project: i32) -> Result<(), Trouble> {
    let sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE project = $1) OR EXISTS (SELECT 1 FROM events WHERE project = $1)
               OR EXISTS (SELECT 1 FROM agents WHERE project = $1) OR EXISTS (SELECT 1 FROM state_keys WHERE project = $1)
               OR EXISTS (SELECT 1 FROM state_policies WHERE project = $1) OR EXISTS (SELECT 1 FROM locks WHERE project = $1)";
    // Two imports into one project wait for each other here.
    line.ask(Ask::new("SELECT 1 FROM projects WHERE number = $1 FOR UPDATE").with(project)).await?;
    let rows = line.ask(Ask::new(sql).with(project)).await?;
    if rows.first().map(|row| read::<bool>(row, 0)).transpose()? != Some(false) {
        let what = "the project holds something already: import into an empty one";
        return Err(Trouble::Known(Failure::new(Kind::NotEmpty, what)));
    }
    Ok(())
}

async fn set_counters(line: &Line, project: i32, cells: &[Cell]) -> Result<(), Trouble> {
    let wrong = || Trouble::data("the counters of the export do not fit");
    let [at, cursor, letter, task, events, Cell::Text(states)] = cells else { return Err(wrong()) };
    let number = |cell: &Cell| match cell {
        Cell::Number(number) => Ok(*number),
        _ => Err(wrong()),
    };
    let states: [i64; 9] = serde_json::from_str(states).map_err(|_| wrong())?;
    line.ask(super::write::count(project, 0, Time(number(at)?), &states)).await?;
    let ask = Ask::new(SET_NUMBERS).with(number(cursor)?).with(number(letter)?).with(number(task)?);
    line.ask(ask).await?;
    let sql = "UPDATE projects SET project_events = $2, agents_version = agents_version + 1 WHERE number = $1";
    line.ask(Ask::new(sql).with(project).with(number(events)?)).await?;
    Ok(())
}

async fn set_stamp(line: &Line, project: i32, cells: &[Cell]) -> Result<(), Trouble> {
    let [Cell::Number(last)] = cells else {
        return Err(Trouble::data("the stamps of the export do not fit"));
    };
    line.ask(Ask::new(SET_STAMP).with(project).with(*last)).await.map(drop)
}

async fn keep(
    blobs: &Arc<dyn LargeBodies>,
    body: Option<(Hash, Vec<u8>)>,
    lines: &mut Lines<'_>,
) -> Result<(), Trouble> {
    let Some((hash, bytes)) = body else { return Ok(()) };
    if Hash::of(&bytes) != hash {
        let what = format!("follows on body {}, which is damaged", hash.hex());
        return Err(lines.wrong(&what).into());
    }
    let kept = blobs.put(bytes).await;
    kept.map(drop).map_err(|error| Trouble::data(format!("a body cannot be kept: {error}")))
}

/// Rows of one table that are written together.
struct Chunk<'a> {
    line: &'a Line,
    project: i32,
    table: Option<&'static Table>,
    rows: Vec<Vec<Cell>>,
    sql: String,
}

impl Chunk<'_> {
    async fn add(&mut self, table: &'static Table, cells: Vec<Cell>) -> Result<(), Trouble> {
        let same = self.table.is_some_and(|current| current.name == table.name);
        if !same {
            self.write().await?;
            self.sql = insert(self.line, table).await?;
            self.table = Some(table);
        }
        self.rows.push(cells);
        if self.rows.len() >= CHUNK {
            self.write().await?;
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), Trouble> {
        let Some(table) = self.table.filter(|_| !self.rows.is_empty()) else { return Ok(()) };
        let rows = std::mem::take(&mut self.rows);
        let mut ask = Ask::of_text(&self.sql).with(self.project);
        for (at, (_, spelled)) in table.columns.iter().enumerate() {
            let column = rows.iter().map(|row| &row[at]);
            ask = match spelled {
                As::Number => ask.column(column.map(|cell| match cell {
                    Cell::Number(number) => Some(*number),
                    _ => None,
                })),
                As::Text => ask.column(column.map(|cell| match cell {
                    Cell::Text(text) => Some(text.as_str()),
                    _ => None,
                })),
                As::Id => ask.column(column.map(|cell| match cell {
                    Cell::Id(id) => Some(*id),
                    _ => None::<Uuid>,
                })),
                As::Hash => ask.column(column.map(|cell| match cell {
                    Cell::Hash(hash) => Some(hash.0.to_vec()),
                    _ => None,
                })),
                As::Payload => ask.column(column.map(|cell| match cell {
                    Cell::Payload(payload) => Some(cells::payload(payload)),
                    _ => None,
                })),
            };
        }
        self.line.ask_text(ask).await
    }
}

/// The statement that writes rows of a table, with what PostgreSQL keeps beside the columns of an export.
async fn insert(line: &Line, table: &Table) -> Result<String, Trouble> {
    let types = line.ask(Ask::new(TYPES).with(table.name)).await?;
    let mut of: BTreeMap<String, String> = BTreeMap::new();
    for row in &types {
        of.insert(read(row, 0)?, read(row, 1)?);
    }
    let (mut arrays, mut values) = (Vec::new(), Vec::new());
    for (at, (name, spelled)) in table.columns.iter().enumerate() {
        let array = match spelled {
            As::Number => "int8",
            As::Text | As::Payload => "text",
            As::Id => "uuid",
            As::Hash => "bytea",
        };
        arrays.push(format!("${}::{array}[]", at + 2));
        values.push(match of.get(*name).map(String::as_str) {
            Some("boolean") => format!("u.{name} <> 0"),
            Some(kind) => format!("u.{name}::{kind}"),
            None => return Err(Trouble::data(format!("`{}` has no column `{name}`", table.name))),
        });
    }
    let (more, their_values) = match table.name {
        "tasks" => (
            ", queued, listed",
            ", CASE WHEN u.state = 1 THEN true END, CASE WHEN u.state IN (0, 4, 5, 7, 8) THEN u.state END",
        ),
        "agents" => (
            ", slots, spec_version",
            ", (u.spec::json->>'max_concurrency')::int4, (SELECT agents_version + 1 FROM projects WHERE number = $1)",
        ),
        // Nobody has them: whoever looks first takes them.
        "letters" => (", owner, at", ", '00000000-0000-0000-0000-000000000000'::uuid, 0"),
        _ => ("", ""),
    };
    Ok(format!(
        "INSERT INTO {} ({}, project{more}) SELECT {}, $1{their_values} FROM unnest({}) AS u ({})",
        table.name,
        table.names(),
        values.join(", "),
        arrays.join(", "),
        table.names(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_numbered_in_its_body_too() {
        let mut letter = Map::new();
        letter.insert("seq".into(), json!(70));
        letter.insert("body".into(), json!("{\"seq\":1,\"from\":\"1\"}"));
        number_body(&mut letter);
        assert_eq!(letter["body"], json!("{\"seq\":70,\"from\":\"1\"}"));
    }
}
