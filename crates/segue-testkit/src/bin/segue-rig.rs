//! The rig: chaos on a whole cluster of private servers, nodes and workers. `cargo xtask chaos --cluster --help`.
#![expect(clippy::print_stdout, reason = "a program that talks to a person on its standard output")]

use segue_testkit::rig::{self, Kind, Options};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Chaos on a cluster of private servers, nodes and workers. Usage: cargo xtask chaos --cluster [ARGS]

  --minutes N       how long faults come; the work is spread over this time [5]
  --hours N         the same in hours
  --tasks N         tasks in all, those that agents delegate included [400 for each minute, at least 2000]
  --seed N          from what the work and the faults are drawn [another one each time]
  --faults A,B,..   kinds of faults [all]; --faults list names them
  --nodes N         nodes [3]
  --workers N       workers [2]
  --brokers N       nodes of RabbitMQ's cluster [3]
  --no-standby      PostgreSQL without a synchronous standby
  --dir DIR         an empty folder for the run [a new one among the temporary files]
  --json            one object on standard output instead of a report in Markdown
  --binary FILE     the segue program (cargo xtask fills it in)

The folder keeps report.json, report.md, the logs of all members, what agents wrote by themselves (journal.txt), what was
submitted (submitted.txt), what went wrong when (faults.txt), the database (database.sql), its large bodies by name (bodies.txt), and
the check that counted it all (chaos-check-cluster.sql).
";

struct Asked {
    options: Options,
    json: bool,
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "bench") {
        words.remove(0);
        return ended(measure(words));
    }
    let asked = match read(words.into_iter()) {
        Ok(Some(asked)) => asked,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("segue-rig: {why}; --help lists what there is");
            return ExitCode::from(2);
        }
    };
    ended(run(&asked))
}

fn ended(how: Result<bool, String>) -> ExitCode {
    match how {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("segue-rig: {why}");
            ExitCode::from(2)
        }
    }
}

/// `bench --binary FILE [--statements] [ARGS]`: ARGS are those of `segue bench`, which gets servers of its own.
fn measure(mut words: Vec<String>) -> Result<bool, String> {
    let all = words.len();
    words.retain(|word| word != "--statements");
    let statements = words.len() < all;
    let [flag, binary, words @ ..] = &words[..] else { return Err("bench wants --binary".into()) };
    if flag != "--binary" {
        return Err("bench wants --binary first".into());
    }
    let dir = tempfile::Builder::new().prefix("segue-bench-").tempdir();
    let dir = dir.map_err(|error| format!("cannot make a folder: {error}"))?;
    runtime()?.block_on(rig::bench(Path::new(binary), dir.path(), statements, words))
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| format!("the runtime does not start: {error}"))
}

fn run(asked: &Asked) -> Result<bool, String> {
    let report = runtime()?.block_on(rig::chaos(&asked.options))?;
    let write = |name: &str, text: String| {
        std::fs::write(asked.options.dir.join(name), text)
            .map_err(|error| format!("cannot write {name}: {error}"))
    };
    let object = report.json();
    write("report.json", format!("{object}\n"))?;
    write("report.md", report.markdown())?;
    match asked.json {
        true => println!("{object}"),
        false => print!("{}", report.markdown()),
    }
    Ok(report.holds())
}

fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Asked>, String> {
    let mut asked = Asked {
        options: Options {
            binary: PathBuf::new(),
            dir: PathBuf::new(),
            seed: u64::from(uuid::Uuid::new_v4().as_fields().0),
            nodes: 3,
            workers: 2,
            tasks: 0,
            lasts: Duration::from_secs(300),
            faults: Vec::new(),
            standby: true,
            brokers: 3,
            talks: true,
        },
        json: false,
    };
    while let Some(name) = args.next() {
        let options = &mut asked.options;
        let mut value = || args.next().ok_or(format!("{name} wants a value"));
        match name.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--json" => asked.json = true,
            "--no-standby" => options.standby = false,
            "--minutes" => options.lasts = Duration::from_secs(60 * number(&name, &value()?)?),
            "--hours" => options.lasts = Duration::from_secs(3_600 * number(&name, &value()?)?),
            "--tasks" => options.tasks = number(&name, &value()?)? as u32,
            "--seed" => options.seed = value()?.parse().map_err(|_| "--seed wants a number")?,
            "--nodes" => options.nodes = number(&name, &value()?)? as usize,
            "--workers" => {
                options.workers = value()?.parse().map_err(|_| "--workers wants a number")?;
            }
            "--brokers" => options.brokers = number(&name, &value()?)? as usize,
            "--binary" => options.binary = value()?.into(),
            "--dir" => options.dir = value()?.into(),
            "--faults" => match value()?.as_str() {
                "list" => {
                    Kind::ALL.iter().for_each(|kind| println!("{}", kind.name()));
                    return Ok(None);
                }
                words => {
                    options.faults = words.split(',').map(str::parse).collect::<Result<_, _>>()?
                }
            },
            _ => return Err(format!("`{name}` is not known")),
        }
    }
    let options = &mut asked.options;
    if options.tasks == 0 {
        options.tasks = (options.lasts.as_secs() * 400 / 60).clamp(2_000, 1_000_000) as u32;
    }
    if !options.binary.is_file() {
        return Err("--binary wants the segue program".into());
    }
    options.binary = options.binary.canonicalize().map_err(|error| error.to_string())?;
    options.dir = folder(&options.dir)?;
    Ok(Some(asked))
}

/// The folder of the run: there, and empty.
fn folder(asked: &Path) -> Result<PathBuf, String> {
    if asked.as_os_str().is_empty() {
        let made = tempfile::Builder::new().prefix("segue-rig-").tempdir();
        return Ok(made.map_err(|error| format!("cannot make a folder: {error}"))?.keep());
    }
    let empty =
        std::fs::create_dir_all(asked).and_then(|()| Ok(asked.read_dir()?.next().is_none()));
    match empty.map_err(|error| format!("{}: {error}", asked.display()))? {
        true => asked.canonicalize().map_err(|error| error.to_string()),
        false => Err(format!("{} is not empty", asked.display())),
    }
}

fn number(name: &str, word: &str) -> Result<u64, String> {
    match word.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err(format!("{name} wants a number of at least 1, not `{word}`")),
    }
}
