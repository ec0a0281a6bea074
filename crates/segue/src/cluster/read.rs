//! Reads a settings file section by section: everything that is wrong is told at once, each with its line, and no value is repeated.

use segue_core::workflow::{did_you_mean, parse_duration_ms};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Bytes of a file that holds a secret, at most.
const SECRET_MAX: u64 = 64 * 1024;
/// Bytes of a settings file, at most.
pub const FILE_MAX: u64 = 1024 * 1024;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Something that is wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wrong {
    /// Where; the whole file where it is zero.
    pub line: usize,
    /// What, and what to write instead.
    pub what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.what),
            line => write!(f, "line {line}: {}", self.what),
        }
    }
}

/// Where variables of the environment come from.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file that is read.
pub struct Reader<'a> {
    text: &'a str,
    /// The folder of the file: names of other files are relative to it.
    folder: &'a Path,
    environment: Environment<'a>,
    wrong: Vec<Wrong>,
}

/// A section of the file, and which of its keys were asked for.
pub struct Section<'a> {
    name: &'static str,
    line: usize,
    table: Option<&'a DeTable<'a>>,
    known: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// Whether it stands in the file.
    pub fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// Where it begins.
    pub fn line(&self) -> usize {
        self.line
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.insert(key);
        let entry = self.table?.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some(entry.1)
    }
}

impl<'a> Reader<'a> {
    /// Of this text, which stands in a file of this folder.
    pub fn new(text: &'a str, folder: &'a Path, environment: Environment<'a>) -> Reader<'a> {
        Reader { text, folder, environment, wrong: Vec::new() }
    }

    /// Notes that something is wrong.
    pub fn note(&mut self, line: usize, what: impl Into<String>) {
        self.wrong.push(Wrong { line, what: what.into() });
    }

    /// What is wrong, in the order of the file.
    pub fn finish(mut self) -> Vec<Wrong> {
        self.wrong.sort();
        self.wrong.dedup();
        self.wrong
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }

    /// The sections of the file; only these names may stand there.
    pub fn sections<const N: usize>(
        &mut self,
        file: &'a DeTable<'a>,
        names: [&'static str; N],
    ) -> [Section<'a>; N] {
        for (name, _) in file.iter() {
            let (line, name) = (self.line(name.span().start), name.get_ref().as_ref());
            if !names.contains(&name) {
                let meant = did_you_mean(name, names.into_iter());
                let meant = meant.unwrap_or_else(|| format!("there are [{}]", names.join("], [")));
                self.note(line, format!("there is no section `{name}`; {meant}"));
            }
        }
        names.map(|name| {
            let found = file.iter().find(|(key, _)| key.get_ref().as_ref() == name);
            let line = found.map_or(0, |(key, _)| self.line(key.span().start));
            let table = found.and_then(|(_, value)| value.get_ref().as_table());
            if found.is_some() && table.is_none() {
                self.note(line, format!("`{name}` is a section: write [{name}]"));
            }
            Section { name, line, table, known: BTreeSet::new() }
        })
    }

    /// The folder of the file.
    pub fn folder(&self) -> &'a Path {
        self.folder
    }

    /// A table within a section, as a section of its own.
    pub fn inner(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<Section<'a>> {
        let value = section.value(key)?;
        let at = value.span().start;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(section, key, at, "a table, such as { last = 24 }");
        }
        Some(Section {
            name: key,
            line: self.line(at),
            table: Some(table?),
            known: BTreeSet::new(),
        })
    }

    /// Everything of the section was asked for: what else stands there is unknown.
    pub fn close(&mut self, section: &Section<'a>) {
        for (key, _) in section.table.into_iter().flat_map(|table| table.iter()) {
            let (line, name) = (self.line(key.span().start), key.get_ref().as_ref());
            if !section.known.contains(name) {
                let known: Vec<&str> = section.known.iter().copied().collect();
                let meant = did_you_mean(name, known.iter().copied());
                let meant = meant.unwrap_or_else(|| format!("there are {}", known.join(", ")));
                let what = format!("[{}] has no `{name}`; {meant}", section.name);
                self.note(line, what);
            }
        }
    }

    fn wrong_type(&mut self, section: &Section<'a>, key: &str, at: usize, wanted: &str) {
        let line = self.line(at);
        self.note(line, format!("`{key}` of [{}] is {wanted}", section.name));
    }

    /// A text that must not be missing.
    pub fn needed(&mut self, section: &mut Section<'a>, key: &'static str) -> Secret {
        let before = self.wrong.len();
        match self.secret(section, key) {
            Some(text) => text,
            None => {
                if self.wrong.len() == before {
                    let (name, line) = (section.name, section.line);
                    self.note(line, format!("[{name}] needs `{key}`"));
                }
                Secret::new("")
            }
        }
    }

    /// A text: as it stands, with `${NAME}` for variables of the environment; `{ file = ".." }` or `{ env = ".." }`.
    pub fn secret(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<Secret> {
        let value = section.value(key)?;
        self.text_of(section, key, value)
    }

    fn text_of(
        &mut self,
        section: &Section<'a>,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Secret> {
        let at = value.span().start;
        let found = match value.get_ref() {
            DeValue::String(text) => self.expanded(text),
            DeValue::Table(table) => self.referred(table),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong_type(
                    section,
                    key,
                    at,
                    "a text, or { file = \"..\" }, or { env = \"..\" }",
                );
                return None;
            }
        };
        match found {
            Ok(text) if text.is_empty() => {
                self.wrong_type(section, key, at, "empty");
                None
            }
            Ok(text) => Some(Secret(text)),
            Err(what) => {
                let line = self.line(at);
                self.note(line, format!("`{key}` of [{}]: {what}", section.name));
                None
            }
        }
    }

    fn expanded(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                return Err("a `${` has no `}`".into());
            };
            out.push_str(&self.variable(&rest[start + 2..start + end])?);
            rest = &rest[start + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        (self.environment)(name)
            .ok_or_else(|| format!("the variable {name} is not set in the environment"))
    }

    fn referred(&self, table: &DeTable<'a>) -> Result<String, String> {
        let entries: Vec<(&str, Option<&str>)> = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value.get_ref().as_str()))
            .collect();
        match entries[..] {
            [("env", Some(name))] => self.variable(name),
            [("file", Some(path))] => self.file(path),
            _ => Err("a reference is { file = \"..\" } or { env = \"..\" }".into()),
        }
    }

    /// The text of a file, without its last newline.
    fn file(&self, path: &str) -> Result<String, String> {
        let path = self.folder.join(path);
        let shown = path.display();
        let length = std::fs::metadata(&path).map_err(|error| format!("{shown}: {error}"))?.len();
        if length > SECRET_MAX {
            return Err(format!("{shown} has more than {SECRET_MAX} bytes"));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{shown}: {error}"))?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// A text that may be shown.
    pub fn text(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<String> {
        self.secret(section, key).map(|text| text.0)
    }

    /// The name of a file, relative to the folder of this one.
    pub fn path(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<PathBuf> {
        let at = section.value(key)?.span().start;
        let path = self.folder.join(self.text(section, key)?);
        if !path.exists() {
            self.wrong_type(section, key, at, &format!("{}, which is not there", path.display()));
            return None;
        }
        Some(path)
    }

    /// One text or several.
    pub fn texts(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<Vec<Secret>> {
        let value = section.value(key)?;
        match value.get_ref() {
            DeValue::Array(values) => {
                Some(values.iter().filter_map(|value| self.text_of(section, key, value)).collect())
            }
            _ => self.text_of(section, key, value).map(|text| vec![text]),
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<bool> {
        let value = section.value(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(section, key, value.span().start, "true or false");
        }
        flag
    }

    /// A whole number within bounds.
    pub fn number(
        &mut self,
        section: &mut Section<'a>,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = section.value(key)?;
        let number = value.get_ref().as_integer();
        let number = number.and_then(|it| u64::from_str_radix(it.as_str(), it.radix()).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let wanted = format!("a number from {} to {}", bounds.start(), bounds.end());
            self.wrong_type(section, key, value.span().start, &wanted);
        }
        number
    }

    /// A duration such as "90s", in milliseconds.
    pub fn duration(&mut self, section: &mut Section<'a>, key: &'static str) -> Option<u64> {
        let at = section.value(key)?.span().start;
        let text = self.text(section, key)?;
        match parse_duration_ms(&text) {
            Ok(ms) => Some(ms),
            Err(_) => {
                self.wrong_type(section, key, at, "a duration such as \"90s\" or \"2h\"");
                None
            }
        }
    }
}

/// The URL with this password, where it has none.
///
/// # Errors
/// When it is no URL, or has a password already. The URL is not repeated.
pub fn with_password(url: &Secret, password: &Secret, user_needed: bool) -> Result<Secret, String> {
    let (scheme, rest) = url.0.split_once("://").ok_or("it is no URL")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err("there is a password in the URL as well: leave one of them out".into());
    }
    if user.is_empty() && user_needed {
        return Err("the URL names no user for the password: write SCHEME://USER@HOST".into());
    }
    let password = crate::client::encoded(&password.0);
    Ok(Secret(format!("{scheme}://{user}:{password}@{hosts}{tail}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_into_a_url_and_only_once() {
        let put = |url: &str, user| with_password(&Secret::new(url), &Secret::new("p@:/"), user);
        let reveal = |url: &str| put(url, false).unwrap().reveal().to_owned();
        assert_eq!(
            reveal("postgresql://ann@h1:1,h2:2/db?x=y@z"),
            "postgresql://ann:p%40%3A%2F@h1:1,h2:2/db?x=y@z"
        );
        assert_eq!(reveal("redis://h:1"), "redis://:p%40%3A%2F@h:1");
        assert!(put("amqp://ann:old@h", true).unwrap_err().contains("as well"));
        assert!(put("amqp://h", true).unwrap_err().contains("no user"));
        assert!(put("nonsense", true).unwrap_err().contains("no URL"));
        assert_eq!(format!("{:?}", put("amqp://ann@h", true).unwrap()), "<secret>");
    }
}
