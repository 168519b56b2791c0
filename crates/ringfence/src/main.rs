//! `ringfence`: the program. Command line in, exit code out: 0 is success, 1 is "no" (a check failed, a request was
//! refused), 2 is a usage or configuration error.

mod command;
mod config;
mod demo;
mod flows;
mod metrics;
mod moves;
mod password;
mod scans;
mod serve;
mod tls;
mod traces;
mod watch;
mod web;

use std::process::ExitCode;

use clap::Parser;

use crate::command::{Cli, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("ringfence: cannot start: {e}");
            return ExitCode::from(2);
        }
    };
    let result = runtime.block_on(command::run(cli));
    // A cluster that was just being started when somebody pressed Ctrl-C is stopped before we go.
    runtime.shutdown_timeout(std::time::Duration::from_secs(30));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, hint, code }) => {
            if !message.is_empty() {
                eprintln!("ringfence: {message}");
            }
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(code)
        }
    }
}
