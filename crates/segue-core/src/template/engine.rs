//! The template engine, with only those filters, tests and functions that stay within bounds.

use std::fmt::Write as _;
use std::sync::OnceLock;

use minijinja::value::{Kwargs, Rest, Value as Dynamic, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters, tests};

use super::data;
use super::{MAX_STEPS, MAX_TEXT_BYTES, MAX_WORK};

/// A filter that a template may use.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Its name behind `|`.
    pub name: &'static str,
    /// One line for the manual.
    pub doc: &'static str,
}

const fn filter(name: &'static str, doc: &'static str) -> Filter {
    Filter { name, doc }
}

/// Every filter that a template may use.
pub const FILTERS: &[Filter] = &[
    filter("abs", "the number without its sign"),
    filter("attr", "`x | attr('name')`: the same as `x['name']`"),
    filter("batch", "`list | batch(50)`: lists of at most 50 items each"),
    filter("bool", "whether the value counts as true"),
    filter("capitalize", "first letter large, the rest small"),
    filter("count", "the same as `length`"),
    filter("d", "the same as `default`"),
    filter("default", "`x | default('none')`: another value where x is not there"),
    filter("dictsort", "a map as a list of `[key, value]`, sorted by key"),
    filter("first", "the first item"),
    filter("float", "the number, with a fraction"),
    filter("groupby", "`list | groupby('language')`: a list of `[value, items]`"),
    filter("indent", "`text | indent(4)`: every line but the first moved right"),
    filter("int", "the whole number"),
    filter("items", "a map as a list of `[key, value]`"),
    filter("join", "`list | join(', ')`: one text; `attribute='name'` takes a field of each item"),
    filter("last", "the last item"),
    filter("length", "how many items or characters"),
    filter("lines", "the lines of a text"),
    filter("list", "the items as a list"),
    filter("lower", "small letters"),
    filter("map", "`list | map(attribute='path')` or `list | map('upper')`"),
    filter("max", "the largest item"),
    filter("min", "the smallest item"),
    filter("reject", "`list | reject('none')`: without the items that pass a test"),
    filter("rejectattr", "`list | rejectattr('size', 'gt', 10)`"),
    filter("replace", "`text | replace('a', 'b')`"),
    filter("reverse", "the other way round"),
    filter("round", "`x | round(2)`"),
    filter("select", "`list | select('number')`: only the items that pass a test"),
    filter("selectattr", "`list | selectattr('kind', 'eq', 'file')`"),
    filter("sort", "`list | sort`, `list | sort(attribute='size', reverse=true)`"),
    filter("split", "`text | split(',')`"),
    filter("string", "as text"),
    filter("sum", "`list | sum`, `list | sum(attribute='size')`"),
    filter("title", "Each Word With A Large Letter"),
    filter("tojson", "as JSON"),
    filter("trim", "without white space at both ends"),
    filter("unique", "each item once"),
    filter("upper", "large letters"),
];

/// Every test that a template may use behind `is`.
pub const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// Every function that a template may call.
pub const FUNCTIONS: &[&str] = &["range"];

/// The engine, built once.
pub(super) fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(build)
}

fn build() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(MAX_STEPS));
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // The defaults of the syntax cannot fail to build; the plain one is kept if they ever do.
    if let Ok(syntax) = env
        .syntax()
        .to_builder()
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        env.set_syntax(syntax);
    }
    env.set_formatter(|out, _state, value| {
        let text = data::to_text(value, MAX_TEXT_BYTES)?;
        out.write_str(&text).map_err(Error::from)
    });
    for name in ["safe", "escape", "e"] {
        env.remove_filter(name);
    }
    for name in ["safe", "escaped"] {
        env.remove_test(name);
    }
    add_filters(&mut env);
    add_tests(&mut env);
    env.add_function("range", range);
    env
}

/// How much of [`MAX_WORK`] an evaluation has left.
struct Work(usize);

/// Counts what filters go through, which the engine's own step count does not see.
fn charge(state: &mut State<'_, '_>, args: &[Dynamic]) -> Result<(), Error> {
    let size = args
        .iter()
        .map(|arg| arg.as_str().map_or_else(|| arg.len().unwrap_or(1), str::len) + 1)
        .sum::<usize>();
    let work = state.get_or_insert_extension_with(|| Work(MAX_WORK));
    match work.0.checked_sub(size) {
        Some(left) => work.0 = left,
        None => return Err(Error::from(ErrorKind::OutOfFuel)),
    }
    Ok(())
}

/// Adds a filter whose result is no larger than what it is given.
fn add_plain(env: &mut Environment<'static>, name: &'static str, inner: Dynamic) {
    env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        charge(state, &args)?;
        inner.call(state, &args)
    });
}

fn add_filters(env: &mut Environment<'static>) {
    let plain = [
        ("abs", Dynamic::from_function(filters::abs)),
        ("attr", Dynamic::from_function(filters::attr)),
        ("bool", Dynamic::from_function(filters::bool)),
        ("capitalize", Dynamic::from_function(filters::capitalize)),
        ("count", Dynamic::from_function(filters::length)),
        ("d", Dynamic::from_function(filters::default)),
        ("default", Dynamic::from_function(filters::default)),
        ("dictsort", Dynamic::from_function(filters::dictsort)),
        ("first", Dynamic::from_function(filters::first)),
        ("float", Dynamic::from_function(filters::float)),
        ("groupby", Dynamic::from_function(filters::groupby)),
        ("int", Dynamic::from_function(filters::int)),
        ("items", Dynamic::from_function(filters::items)),
        ("last", Dynamic::from_function(filters::last)),
        ("length", Dynamic::from_function(filters::length)),
        ("lines", Dynamic::from_function(filters::lines)),
        ("list", Dynamic::from_function(filters::list)),
        ("lower", Dynamic::from_function(filters::lower)),
        ("map", Dynamic::from_function(filters::map)),
        ("max", Dynamic::from_function(filters::max)),
        ("min", Dynamic::from_function(filters::min)),
        ("reject", Dynamic::from_function(filters::reject)),
        ("rejectattr", Dynamic::from_function(filters::rejectattr)),
        ("reverse", Dynamic::from_function(filters::reverse)),
        ("round", Dynamic::from_function(filters::round)),
        ("select", Dynamic::from_function(filters::select)),
        ("selectattr", Dynamic::from_function(filters::selectattr)),
        ("sort", Dynamic::from_function(filters::sort)),
        ("split", Dynamic::from_function(filters::split)),
        ("title", Dynamic::from_function(filters::title)),
        ("trim", Dynamic::from_function(filters::trim)),
        ("unique", Dynamic::from_function(filters::unique)),
        ("upper", Dynamic::from_function(filters::upper)),
    ];
    for (name, inner) in plain {
        add_plain(env, name, inner);
    }
    env.add_filter("__number", only_number);
    env.add_filter("batch", batch);
    env.add_filter("indent", indent);
    env.add_filter("join", join);
    env.add_filter("replace", replace);
    env.add_filter("string", string);
    env.add_filter("sum", sum);
    env.add_filter("tojson", tojson);
}

fn add_tests(env: &mut Environment<'static>) {
    env.add_test("boolean", tests::is_boolean);
    env.add_test("defined", tests::is_defined);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("eq", tests::is_eq);
    env.add_test("equalto", tests::is_eq);
    env.add_test("even", tests::is_even);
    env.add_test("false", tests::is_false);
    env.add_test("float", tests::is_float);
    env.add_test("ge", tests::is_ge);
    env.add_test("greaterthan", tests::is_gt);
    env.add_test("gt", tests::is_gt);
    env.add_test("in", tests::is_in);
    env.add_test("int", tests::is_integer);
    env.add_test("integer", tests::is_integer);
    env.add_test("iterable", tests::is_iterable);
    env.add_test("le", tests::is_le);
    env.add_test("lessthan", tests::is_lt);
    env.add_test("lower", tests::is_lower);
    env.add_test("lt", tests::is_lt);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("ne", tests::is_ne);
    env.add_test("none", tests::is_none);
    env.add_test("number", tests::is_number);
    env.add_test("odd", tests::is_odd);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("string", tests::is_string);
    env.add_test("true", tests::is_true);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("upper", tests::is_upper);
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn too_large() -> Error {
    Error::new(ErrorKind::WriteFailure, "the text is too large")
}

/// A text argument. Undefined values and lists are refused instead of being printed.
fn text_of<'v>(value: &'v Dynamic, filter: &str) -> Result<&'v str, Error> {
    match value.as_str() {
        Some(text) => Ok(text),
        None if value.is_undefined() => Err(Error::from(ErrorKind::UndefinedError)),
        None => Err(refused(format!("`{filter}` works on text, this is {}", kind_name(value)))),
    }
}

/// The kind of a value in plain words, with its article.
pub(super) fn kind_name(value: &Dynamic) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "undefined",
        ValueKind::None => "null",
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a map",
        _ => "no value",
    }
}

/// Stands behind both operands of `*` (see `check`): text and lists cannot be multiplied.
fn only_number(value: Dynamic) -> Result<Dynamic, Error> {
    match value.kind() {
        ValueKind::Number => Ok(value),
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        _ => Err(refused(format!("`*` multiplies numbers, this is {}", kind_name(&value)))),
    }
}

fn range(lower: i64, upper: Option<i64>, step: Option<i64>) -> Result<Dynamic, Error> {
    const ITEMS_MAX: usize = 10_000;
    let (from, to) = upper.map_or((0, lower), |upper| (lower, upper));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(refused("the step of a range cannot be 0"));
    }
    let mut items = Vec::new();
    let mut at = from;
    while (step > 0 && at < to) || (step < 0 && at > to) {
        if items.len() == ITEMS_MAX {
            return Err(refused(format!("a range has at most {ITEMS_MAX} items")));
        }
        items.push(Dynamic::from(at));
        let Some(next) = at.checked_add(step) else {
            break;
        };
        at = next;
    }
    Ok(data::list(items))
}

fn batch(state: &mut State<'_, '_>, value: Dynamic, size: usize) -> Result<Dynamic, Error> {
    charge(state, std::slice::from_ref(&value))?;
    if size == 0 {
        return Err(refused("the size of a batch cannot be 0"));
    }
    let mut batches = Vec::new();
    let mut items = Vec::new();
    for item in iterate(&value, "batch")? {
        items.push(item?);
        if items.len() == size {
            batches.push(data::list(std::mem::take(&mut items)));
        }
    }
    if !items.is_empty() {
        batches.push(data::list(items));
    }
    Ok(data::list(batches))
}

fn iterate(
    value: &Dynamic,
    filter: &str,
) -> Result<impl Iterator<Item = Result<Dynamic, Error>> + use<>, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(refused(format!("`{filter}` works on a list, this is {}", kind_name(value))));
    }
    Ok(value.try_iter()?.checked())
}

fn join(
    state: &mut State<'_, '_>,
    value: Dynamic,
    separator: Option<Dynamic>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    charge(state, std::slice::from_ref(&value))?;
    let attribute = kwargs.get::<Option<String>>("attribute")?;
    let keyword = kwargs.get::<Option<Dynamic>>("d")?;
    kwargs.assert_all_used()?;
    let separator = separator.or(keyword).unwrap_or_else(|| Dynamic::from(""));
    let separator = text_of(&separator, "join")?;
    let mut out = String::new();
    for (at, item) in iterate(&value, "join")?.enumerate() {
        let mut item = item?;
        if let Some(attribute) = &attribute {
            for key in attribute.split('.') {
                item = item.get_attr(key)?;
            }
        }
        let text = data::to_text(&item, MAX_TEXT_BYTES)?;
        let separator = if at == 0 { "" } else { separator };
        if out.len() + separator.len() + text.len() > MAX_TEXT_BYTES {
            return Err(too_large());
        }
        out.push_str(separator);
        out.push_str(&text);
    }
    Ok(out)
}

fn replace(
    state: &mut State<'_, '_>,
    value: Dynamic,
    from: Dynamic,
    to: Dynamic,
) -> Result<String, Error> {
    charge(state, std::slice::from_ref(&value))?;
    let (text, from, to) =
        (text_of(&value, "replace")?, text_of(&from, "replace")?, text_of(&to, "replace")?);
    let found = text.matches(from).count();
    let added = found.saturating_mul(to.len());
    if text.len().saturating_add(added) > MAX_TEXT_BYTES.saturating_add(found * from.len()) {
        return Err(too_large());
    }
    Ok(text.replace(from, to))
}

fn indent(
    state: &mut State<'_, '_>,
    value: Dynamic,
    width: Option<usize>,
    first: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    const WIDTH_MAX: usize = 64;
    charge(state, std::slice::from_ref(&value))?;
    let width = match width {
        Some(width) => width,
        None => kwargs.get::<Option<usize>>("width")?.unwrap_or(4),
    };
    let first = match first {
        Some(first) => first,
        None => kwargs.get::<Option<bool>>("first")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    if width > WIDTH_MAX {
        return Err(refused(format!("a text is indented by at most {WIDTH_MAX}")));
    }
    let text = text_of(&value, "indent")?;
    if text.len() + text.matches('\n').count() * width > MAX_TEXT_BYTES {
        return Err(too_large());
    }
    let pad = " ".repeat(width);
    let mut out = String::with_capacity(text.len());
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if (at > 0 || first) && !line.trim().is_empty() {
            out.push_str(&pad);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn string(state: &mut State<'_, '_>, value: Dynamic) -> Result<String, Error> {
    charge(state, std::slice::from_ref(&value))?;
    data::to_text(&value, MAX_TEXT_BYTES)
}

fn tojson(
    state: &mut State<'_, '_>,
    value: Dynamic,
    indent: Option<Dynamic>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    charge(state, std::slice::from_ref(&value))?;
    let keyword = kwargs.get::<Option<Dynamic>>("indent")?;
    kwargs.assert_all_used()?;
    let pretty = indent.or(keyword).is_some_and(|indent| indent.is_true());
    let mut budget = MAX_TEXT_BYTES;
    let json = data::to_json(&value, &mut budget)?;
    // Indented, a deeply nested value is many times longer than its budget.
    let mut out = data::Bounded { text: String::new(), limit: MAX_TEXT_BYTES };
    let written = if pretty { write!(out, "{json:#}") } else { write!(out, "{json}") };
    written.map_err(|_| too_large())?;
    Ok(out.text)
}

/// Adds numbers only: the engine's own `sum` would also join lists and texts.
fn sum(state: &mut State<'_, '_>, value: Dynamic, kwargs: Kwargs) -> Result<Dynamic, Error> {
    charge(state, std::slice::from_ref(&value))?;
    let attribute = kwargs.get::<Option<String>>("attribute")?;
    kwargs.assert_all_used()?;
    let (mut whole, mut float, mut is_float) = (0_i128, 0.0_f64, false);
    for item in iterate(&value, "sum")? {
        let mut item = item?;
        if let Some(attribute) = &attribute {
            for key in attribute.split('.') {
                item = item.get_attr(key)?;
            }
        }
        let item = only_number(item).map_err(|error| match error.kind() {
            ErrorKind::UndefinedError => error,
            _ => refused("`sum` adds numbers, but the list holds something else"),
        })?;
        if item.is_integer() {
            let int = i128::try_from(item)?;
            whole = whole.checked_add(int).ok_or_else(|| refused("the sum is too large"))?;
        } else {
            is_float = true;
            float += f64::try_from(item)?;
        }
    }
    if is_float {
        return Ok(Dynamic::from(float + whole as f64));
    }
    i64::try_from(whole).map(Dynamic::from).map_err(|_| refused("the sum is too large"))
}
