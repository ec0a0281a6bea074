//! The `segue` binary.

mod agents;
mod bench;
mod config;
mod node;
mod project;

use clap::Parser;

#[derive(Parser)]
enum Cli {
    Bench(bench::BenchArgs),
}

fn main() {
    segue_agent::process::supervise_if_asked();
    let Cli::Bench(args) = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(bench::run(&args)) {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
