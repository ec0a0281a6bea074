//! The project's own chores: `cargo xtask help` lists them.
//!
//! This crate depends on no crate of the workspace and builds in seconds, so that the cheap checks
//! (formatting, house rules) can speak before anything large is compiled.
#![expect(
    clippy::print_stdout,
    reason = "a command line program talks to a person on its standard output"
)]

use std::process::ExitCode;

use anyhow::{Result, bail};

mod chores;
mod ci;
mod counts;
mod coverage;
mod exec;
mod segue;
mod servers;
mod tidy;

const HELP: &str = "\
The project's own chores. Usage: cargo xtask COMMAND [ARGS]

  ci [--keep-going]  everything a change must pass: fmt, tidy, lint, doc, doctest, test, deny
  test [ARGS]        the tests; ARGS go to the test runner (a filter, -p CRATE, ..)
  servers [install]  what is missing of the servers that tests start (PostgreSQL, RabbitMQ, Redis, S3);
                     `install` brings it, from Debian's packages and PyPI, as root or by sudo
  servers rabbitmq4  a RabbitMQ 4 in a folder of its own, and how tests run on it (root)
  tidy [--rules]     the house rules; --rules lists them
  fmt [--check]      format the code, or say what is not formatted
  lint               clippy over every target, warnings are errors
  doc                the API documentation, warnings are errors
  deny               licences, bans, sources and advisories of the dependencies (needs cargo-deny)
  coverage           line coverage of the tests, at least 80 % (needs cargo-llvm-cov)
  bench [ARGS]       build the release binary and run `segue bench ARGS`
  bench --cluster [ARGS]
                     the same on private servers: PostgreSQL, RabbitMQ, Redis; --statements
                     also says which statements took the time of PostgreSQL
  chaos [--release] [ARGS]
                     build the binary with failpoints and run `segue chaos ARGS`
  chaos --cluster [--release] [ARGS]
                     the same of a whole cluster, with private servers; --help lists ARGS
  simulate [ARGS]    simulate the dispatch of many agents in virtual time; --help lists ARGS
  help               this text
";

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one chore. `Ok(false)` says that the chore ran and found something wrong.
fn run(mut args: Vec<String>) -> Result<bool> {
    if args.is_empty() {
        print!("{HELP}");
        return Ok(false);
    }
    let command = args.remove(0);
    match command.as_str() {
        "ci" => {
            let keep_going = flag(&mut args, "--keep-going");
            no_more(&command, &args)?;
            ci::run(keep_going)
        }
        "test" => chores::test(&args),
        "servers" => {
            let what = if args.is_empty() { String::new() } else { args.remove(0) };
            no_more(&command, &args)?;
            match what.as_str() {
                "" => servers::run(false),
                "install" => servers::run(true),
                "rabbitmq4" => servers::rabbitmq4(),
                _ => bail!("`servers` knows no `{what}`; `cargo xtask help` lists what there is"),
            }
        }
        "tidy" => {
            let rules = flag(&mut args, "--rules");
            no_more(&command, &args)?;
            if rules {
                tidy::list_rules();
                return Ok(true);
            }
            tidy::run()
        }
        "fmt" => {
            let check = flag(&mut args, "--check");
            no_more(&command, &args)?;
            chores::fmt(check)
        }
        "lint" => no_more(&command, &args).and_then(|()| chores::lint()),
        "doc" => no_more(&command, &args).and_then(|()| chores::doc()),
        "deny" => {
            no_more(&command, &args)?;
            let outcome = chores::deny()?;
            println!("{}", outcome.why());
            Ok(matches!(outcome, ci::Outcome::Passed | ci::Outcome::Partly(_)))
        }
        "coverage" => no_more(&command, &args).and_then(|()| coverage::run()),
        "bench" => {
            let cluster = flag(&mut args, "--cluster");
            if cluster { segue::cluster_bench(&args) } else { segue::bench(&args) }
        }
        "chaos" => {
            let cluster = flag(&mut args, "--cluster");
            let release = args.first().is_some_and(|arg| arg == "--release");
            let args = &args[usize::from(release)..];
            if cluster { segue::cluster_chaos(release, args) } else { segue::chaos(release, args) }
        }
        "simulate" => segue::simulate(&args),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(true)
        }
        _ => bail!("there is no chore `{command}`; `cargo xtask help` lists them"),
    }
}

/// Takes `name` out of `args` and says whether it was there.
fn flag(args: &mut Vec<String>, name: &str) -> bool {
    let before = args.len();
    args.retain(|arg| arg != name);
    args.len() != before
}

/// Refuses arguments that a chore would otherwise silently ignore.
fn no_more(command: &str, args: &[String]) -> Result<()> {
    match args.first() {
        None => Ok(()),
        Some(arg) => {
            bail!("`{command}` knows no argument `{arg}`; `cargo xtask help` lists what there is")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_unknown_chore_or_argument_is_an_error_that_names_it() {
        let error = run(strings(&["frobnicate"])).unwrap_err().to_string();
        assert!(error.contains("`frobnicate`"), "{error}");
        let error = run(strings(&["tidy", "--fast"])).unwrap_err().to_string();
        assert!(error.contains("`--fast`"), "{error}");
    }

    #[test]
    fn a_flag_is_taken_wherever_it_stands() {
        let mut args = strings(&["a", "--keep-going", "b"]);
        assert!(flag(&mut args, "--keep-going"));
        assert_eq!(args, strings(&["a", "b"]));
        assert!(!flag(&mut args, "--keep-going"));
    }
}
